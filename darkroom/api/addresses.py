"""Where a connection comes from and what it asks for. Knows no route and nobody who asks."""

from collections.abc import Mapping
from typing import Any


def route_of(scope: Mapping[str, Any]) -> str:
    """The path without that of the reverse proxy, which the server puts in front of every path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def address_of(scope: Mapping[str, Any]) -> str:
    """The client's address; empty where the server does not know it."""
    client = scope.get("client")
    return str(client[0]) if client else ""
