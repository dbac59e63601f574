"""What a tracer is told by the application: requests, promised jobs, what is worth knowing of them. Traces nothing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from starlette.types import ASGIApp

from darkroom.history.ledger import Record


class Traces(Protocol):
    """Follows requests and jobs through the server."""

    def layer(self, app: ASGIApp) -> ASGIApp:
        """The application with a span around each request."""

    def carried(self) -> str:
        """What goes on here, as a W3C `traceparent`; empty if nothing is followed."""

    def job(self, record: Record, traceparent: str) -> AbstractContextManager[None]:
        """A span around a promised job that is begun, below the request that asked for it."""

    def note(self, name: str, value: str | int) -> None:
        """Something that is worth knowing of what goes on here."""

    def close(self) -> None:
        """Send what was not sent yet. Takes a few seconds at most."""


class Untraced:
    """Follows nothing."""

    def layer(self, app: ASGIApp) -> ASGIApp:
        """The application as it is."""
        return app

    def carried(self) -> str:
        """Nothing."""
        return ""

    @contextmanager
    def job(self, record: Record, traceparent: str) -> Iterator[None]:
        """No span."""
        del record, traceparent
        yield

    def note(self, name: str, value: str | int) -> None:
        """Nobody hears it."""

    def close(self) -> None:
        """There is nothing."""


UNTRACED: Final = Untraced()
