"""Whose a request is, and what its owner may do. The layer that asks for credentials says it, where there is one."""

from dataclasses import dataclass
from typing import Any, Final

from darkroom.allowances import EVERYBODY_S, Allowance

OWNER: Final = "darkroom.owner"
"""Where a request's ASGI scope holds the name of its user or key."""

ALLOWANCE: Final = "darkroom.allowance"
"""Where it holds what that user or key may do."""

PRIORITY: Final = "darkroom.priority"
"""Where it holds the priority of the work that is asked for."""

EVERYBODY: Final = ""
"""The owner where nobody is asked who they are: there is one user then, who may see everything."""

NOBODY: Final = "\0"
"""The owner of a request that passed without credentials, where others need them: it owns nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, by the name of a user or a key, and what that user or key may do."""

    name: str
    allowance: Allowance


def owner_of(scope: Any) -> str:
    """Whose a request is."""
    return str(scope.get(OWNER, EVERYBODY))


def viewer_of(scope: Any) -> str:
    """Whose work a request may know of: its owner's, or everybody's."""
    return EVERYBODY if allowance_of(scope).sees_all else owner_of(scope)


def allowance_of(scope: Any) -> Allowance:
    """What a request's owner may do."""
    found = scope.get(ALLOWANCE, EVERYBODY_S)
    assert isinstance(found, Allowance)
    return found


def priority_of(scope: Any) -> int:
    """The priority of the work that a request asks for."""
    return int(scope.get(PRIORITY, 0))


def may_see(viewer: str, owner: str) -> bool:
    """Whether somebody may know of somebody's work."""
    return viewer in (EVERYBODY, owner)
