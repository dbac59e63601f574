"""`darkroom user` and `darkroom key`: who may use the API; and whether a server may be started as it is configured.

Imports nothing heavy. What the file holds, and how, is `credentials`' business.
"""

import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from darkroom.allowances import HIGHEST, LOWEST, SCOPES, Allowance, with_word
from darkroom.credentials import Credentials, CredentialsError, read, write
from darkroom.settings import ENV_PREFIX, Settings

users = typer.Typer(help="Users of the API and their passwords.", no_args_is_help=True)
keys = typer.Typer(help="Keys of the API, for programs.", no_args_is_help=True)

File = Annotated[
    Path | None,
    typer.Option(
        "--api-auth-file",
        envvar=f"{ENV_PREFIX}API_AUTH_FILE",
        help="The file of users and keys; the configured one if left out.",
        dir_okay=False,
    ),
]
Name = Annotated[str, typer.Argument(help="The name.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help=f"What is allowed: {', '.join(SCOPES)}. May be repeated; everything if left out."),
]
Pace = Annotated[str | None, typer.Option("--rate", help="Most requests for work: 60/min, 1/s, 1000/h.")]
AtOnce = Annotated[str | None, typer.Option("--jobs", help="Most jobs that wait or are at work.")]
Work = Annotated[str | None, typer.Option("--work", help="Most megapixels times steps in any hour.")]
Priority = Annotated[
    str | None, typer.Option("--priority", help=f"Highest priority that may be asked for, {LOWEST} to {HIGHEST}.")
]


@users.command("add")
def add_user(
    name: Name,
    scope: Scopes = None,
    rate: Pace = None,
    jobs: AtOnce = None,
    work: Work = None,
    priority: Priority = None,
    file: File = None,
) -> None:
    """Add a user, or change a user's password. It is asked for, or read from standard input. A user who is there keeps
    what no option changes.
    """
    path = _find(file)
    with _one_line():
        known = _read(path)
        allowance = _changed(known.user_allowance(name), scope, rate, jobs, work, priority)
        write(path, known.with_user(name, _ask_password(name), allowance))
    typer.echo(f"{path}: {name} can log in")


@users.command("change")
def change_user(
    name: Name,
    scope: Scopes = None,
    rate: Pace = None,
    jobs: AtOnce = None,
    work: Work = None,
    priority: Priority = None,
    file: File = None,
) -> None:
    """Change what a user may do; `any` lifts a limit. A running server notices at once."""
    path = _find(file)
    with _one_line():
        known = read(path)
        allowance = _changed(known.user_allowance(name), scope, rate, jobs, work, priority)
        write(path, known.with_user_allowance(name, allowance))


@users.command("remove")
def remove_user(name: Name, file: File = None) -> None:
    """Let a user in no longer. A running server notices at once."""
    path = _find(file)
    with _one_line():
        write(path, read(path).without_user(name))


@users.command("list")
def list_users(file: File = None) -> None:
    """Names of the users."""
    with _one_line():
        known = read(_find(file))
    for name in known.users:
        typer.echo(f"{name} {known.user_allowance(name)}".rstrip())


@keys.command("add")
def add_key(
    name: Name,
    scope: Scopes = None,
    rate: Pace = None,
    jobs: AtOnce = None,
    work: Work = None,
    priority: Priority = None,
    file: File = None,
) -> None:
    """Make a key and print it, which happens this once. Programs send it as `Authorization: Bearer KEY`."""
    path = _find(file)
    with _one_line():
        changed, key = _read(path).with_key(name, _changed(Allowance(), scope, rate, jobs, work, priority))
        write(path, changed)
    typer.echo(key)


@keys.command("change")
def change_key(
    name: Name,
    scope: Scopes = None,
    rate: Pace = None,
    jobs: AtOnce = None,
    work: Work = None,
    priority: Priority = None,
    file: File = None,
) -> None:
    """Change what a key may do; `any` lifts a limit. A running server notices at once."""
    path = _find(file)
    with _one_line():
        known = read(path)
        allowance = _changed(known.key_allowance(name), scope, rate, jobs, work, priority)
        write(path, known.with_key_allowance(name, allowance))


@keys.command("remove")
def remove_key(name: Name, file: File = None) -> None:
    """Let a key in no longer. A running server notices at once."""
    path = _find(file)
    with _one_line():
        write(path, read(path).without_key(name))


@keys.command("list")
def list_keys(file: File = None) -> None:
    """Names of the keys."""
    with _one_line():
        known = read(_find(file))
    for name in known.keys:
        typer.echo(f"{name} {known.key_allowance(name)}".rstrip())


def check_access(settings: Settings) -> None:
    """Refuse to start a server that nobody could use, or that everybody could. Raises BadParameter."""
    if settings.api_auth_file is not None:
        with _one_line():
            known = read(settings.api_auth_file)
        if not (known.users or known.keys or settings.credentials or settings.api_auth_hashed.get_secret_value()):
            raise typer.BadParameter(f"{settings.api_auth_file} lets nobody in: darkroom user add NAME")
    if settings.tls_certfile is not None and settings.tls_keyfile is not None:
        _check_certificate(settings.tls_certfile, settings.tls_keyfile)
    if not (settings.is_guarded or settings.insecure_no_auth or is_loopback(settings.bind_host)):
        raise typer.BadParameter(
            f"{settings.bind_host or 'every interface'} lets other machines in, and no password is set: give --api-auth"
            " or --api-auth-file, or --insecure-no-auth if everybody who reaches this machine may use it"
        )


def exposures(settings: Settings) -> Iterator[str]:
    """Who may use a server that asks for no password, beside the programs of this machine."""
    if settings.is_guarded:
        return
    if not is_loopback(settings.bind_host):
        yield "everybody who reaches this machine may use the server: no password is set"
    if "*" in settings.origins:
        yield "every web page that is opened here may use the server: all origins are allowed, and no password is set"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is bound to an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)} if host else set()
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def _check_certificate(certificate: Path, key: Path) -> None:
    import ssl

    def no_password() -> str:
        raise typer.BadParameter(f"{key} is protected by a password, which a server cannot type")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=no_password)
    except OSError as error:
        raise typer.BadParameter(f"{certificate} and {key} cannot be used for TLS: {error.strerror}") from None


@contextmanager
def _one_line() -> Iterator[None]:
    """Tell what is wrong in one line. Raises BadParameter."""
    try:
        yield
    except CredentialsError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}") from None


def _changed(
    allowance: Allowance,
    scope: list[str] | None,
    rate: str | None,
    jobs: str | None,
    work: str | None,
    priority: str | None,
) -> Allowance:
    """An allowance with what was given on the command line. Raises BadParameter."""
    scopes = "+".join(scope) if scope else None
    given = {"scope": scopes, "rate": rate, "jobs": jobs, "work": work, "priority": priority}
    try:
        for name, value in given.items():
            allowance = allowance if value is None else with_word(allowance, name, value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return allowance


def _find(file: Path | None) -> Path:
    """The file that is meant. Raises BadParameter where none is."""
    try:
        path = file or Settings.load().api_auth_file
    except (ValidationError, OSError, ValueError) as error:
        raise typer.BadParameter(f"settings: {error}") from None
    if path is None:
        raise typer.BadParameter("say which file: --api-auth-file, here, for the server, or in darkroom.toml")
    return path


def _read(path: Path) -> Credentials:
    return read(path) if path.exists() else Credentials()


def _ask_password(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password: str = typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True)
    return password
