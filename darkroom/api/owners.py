"""Whose a request is. The layer that asks for credentials says it, where credentials are asked for."""

from typing import Any, Final

OWNER: Final = "darkroom.owner"
"""Where a request's ASGI scope holds the name of its user or key."""

EVERYBODY: Final = ""
"""The owner where nobody is asked who they are: there is one user then, who may see everything."""

NOBODY: Final = "\0"
"""The owner of a request that passed without credentials, where others need them: it owns nothing."""


def owner_of(scope: Any) -> str:
    """Whose a request is."""
    return str(scope.get(OWNER, EVERYBODY))


def may_see(viewer: str, owner: str) -> bool:
    """Whether somebody may know of somebody's work."""
    return viewer in (EVERYBODY, owner)
