"""`--share`: a public link to this server, through the tunnel that Gradio offers, and the login that it asks for.

Gradio is imported when a link is opened and not before. Knows nothing of HTTP but the port that is shared.
"""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import SecretStr

from darkroom.settings import Settings

USER = "share"
"""Who logs in where the operator has named nobody."""

LINKS = "*.gradio.live"
"""The names of public links."""

Tell = Callable[[str], None]
Tunnel = Callable[[str, int], str]
"""Opens a tunnel to an address and a port of this machine and gives its link. Raises NoLinkError."""


class NoLinkError(Exception):
    """There is no public link; the text says why."""


@dataclass(slots=True, kw_only=True)
class Share:
    """The public link of a server that is to have one, opened beside the server, which does not wait for it."""

    settings: Settings
    tell: Tell
    warn: Tell
    tunnel: Tunnel = field(default_factory=lambda: gradio_tunnel)
    close_tunnels: Callable[[], None] = field(default_factory=lambda: close_gradio_tunnels)
    _thread: threading.Thread | None = None

    def open(self, port: int) -> None:
        """Begin; the link is told once it is there, or why there is none."""
        if not self.settings.share:
            return
        self._thread = threading.Thread(target=self._open, args=(port,), name="share", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Have the link lead nowhere."""
        if self._thread is not None:
            self.close_tunnels()

    def _open(self, port: int) -> None:
        host = self.settings.bind_host
        try:
            link = self.tunnel("127.0.0.1" if host in {"", "0.0.0.0", "::"} else host, port)  # noqa: S104  compared
        except NoLinkError as error:
            self.warn(f"Public link: none, because {error}. The server is there all the same.")
        else:
            self.tell(f"Public link: {link}")


def with_login(settings: Settings, tell: Tell) -> Settings:
    """The settings, of which those of a shared server demand a login and know the link's name.

    Where nobody is named who may log in, a user is made up for this run and told.
    """
    if not settings.share:
        return settings
    changes: dict[str, object] = {}
    if not settings.is_guarded:
        password = secrets.token_urlsafe(12)
        changes["api_auth"] = SecretStr(f"{USER}:{password}")
        tell(f"Log in as {USER} with the password {password}, which counts for this run")
    if settings.host_names:
        changes["allowed_hosts"] = f"{settings.allowed_hosts},{LINKS}"
    return settings.model_copy(update=changes)


def gradio_tunnel(host: str, port: int) -> str:
    """Gradio's tunnel: a program that is downloaded once, and a server at gradio.live that it connects to."""
    import httpx
    from gradio.exceptions import ChecksumMismatchError
    from gradio.networking import setup_tunnel

    try:
        return setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
    except ChecksumMismatchError:
        raise NoLinkError("the tunnel's program is not the one that Gradio published") from None
    except httpx.HTTPError as error:
        raise NoLinkError(f"the tunnel's program cannot be downloaded ({error})") from None
    except OSError as error:
        raise NoLinkError(f"the tunnel's program cannot be run ({error.strerror or error})") from None
    except RuntimeError as error:
        raise NoLinkError(f"Gradio's server of public links cannot be reached ({error.__cause__ or error})") from None
    except ValueError as error:
        raise NoLinkError(f"the tunnel did not open ({' '.join(str(error).split())})") from None


def close_gradio_tunnels() -> None:
    """End the programs of the tunnels that were opened here."""
    from gradio.tunneling import CURRENT_TUNNELS

    for tunnel in CURRENT_TUNNELS:
        tunnel.kill()  # type: ignore[no-untyped-call]
