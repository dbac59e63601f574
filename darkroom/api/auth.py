"""Who is there: passwords and keys in front of every route. Knows nothing of what lies behind.

Where credentials are set, every route asks for them but those of `OPEN`. Where none are, an Authorization header is
nobody's business.
"""

import asyncio
import base64
import binascii
import hashlib
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from darkroom.allowances import ADMINISTRATOR, Allowance
from darkroom.api.addresses import address_of, route_of
from darkroom.api.answers import answer_error
from darkroom.api.brake import Brake
from darkroom.api.login_page import login_address
from darkroom.api.openai import errors as openai
from darkroom.api.owners import ALLOWANCE, NOBODY, OWNER, Caller
from darkroom.api.scopes import scope_of
from darkroom.api.sessions import Sessions, check_own_page
from darkroom.credentials import Credentials, CredentialsError, PasswordHash, read
from darkroom.errors import DarkroomError, MissingScope, Unauthorized
from darkroom.kept_secrets import kept_secret
from darkroom.settings import Settings

log = logging.getLogger(__name__)

OPEN = frozenset({"/health", "/ready", "/internal/ping", "/docs", "/redoc", "/openapi.json", "/login", "/logout"})
"""Routes that tell nothing but that the server is there, how it is spoken to, and whether a password is right."""

_FOR_PROGRAMS = ("/sdapi/", "/internal/", "/v1/")
"""Routes that no person opens as a page: without credentials they answer as ever."""

OPEN_BELOW = ("/static-offline-docs/", "/ui-assets/", "/v1/pictures/")
"""The files of those pages; pictures under names that nobody can guess, which an answer told."""

_SIGNABLE = re.compile(r"/images/[0-9a-f]+/file")
"""Addresses that may be signed; their route checks the signature."""

_HASHERS = 2
"""Passwords that are hashed at once; each takes a core and 16 MiB."""

_NOTHING = Allowance(scopes=frozenset())
"""What those may do who need no credentials: what is open to everybody."""

_DECOY = PasswordHash(salt=bytes(16), digest=bytes(32))
"""What is hashed for a user who does not exist, so that time does not tell."""


class Gate:
    """Tells whether a password or a key is right; slows down whoever guesses. One for each application.

    A password that was right is recognised again without its costly hash, by a keyed digest that is worth nothing
    outside this process.
    """

    def __init__(self, settings: Settings, brake: Brake | None = None) -> None:
        self.is_closed = settings.is_guarded
        self._file = _File(settings.api_auth_file, settings.hashed_credentials)
        self._brake = brake or Brake()
        self._secret = secrets.token_bytes(32)
        self._passwords = settings.credentials
        self._admins = settings.admin_names
        self._plain = {self._digest(f"{user}:{password}".encode()) for user, password in self._passwords.items()}
        self.sessions = Sessions(secret=_session_secret(settings), valid_s=settings.login_valid_s)
        self._proven: set[bytes] = set()
        self._proven_by: Credentials | None = None
        self._proofs: dict[bytes, asyncio.Future[bool]] = {}
        self._hashers = CapacityLimiter(_HASHERS)

    async def check(self, header: str, address: str) -> Caller:
        """Let an Authorization header pass, or not. Raises Unauthorized, TooManyAttempts."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "bearer" and self._file.current().keys:
            return self._check_key(value.strip(), address)
        if scheme.lower() == "basic":
            pair = _unpack(value)
            await self.check_password(pair, address)
            return self._user(pair.partition(b":")[0].decode("utf-8", "replace"))
        raise Unauthorized("Not authenticated")

    async def check_request(self, scope: Scope) -> Caller:
        """Let a connection pass, or not. It shows an Authorization header or, where it has none, the cookie of a
        login. Raises Unauthorized, TooManyAttempts, Forbidden, MissingScope.
        """
        caller = await self._identify(scope)
        needed = scope_of(scope.get("method", "GET"), route_of(scope))
        if not caller.allowance.allows(needed):
            raise MissingScope(f"{caller.name[:64]!r} lacks the scope {needed!r}, which this needs")
        return caller

    async def _identify(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        header = headers.get("authorization", "")
        user = None if header else self.find_session(headers)
        if user is None:
            return await self.check(header, address_of(scope))
        check_own_page(scope, headers)
        return self._user(user)

    def find_session(self, headers: Headers) -> str | None:
        """The user whose login a request shows; None if it shows none that counts."""
        token = self.sessions.token_of(headers)
        return self.sessions.find_user(token, self._marks) if token else None

    async def log_in(self, pair: bytes, address: str) -> str:
        """The token of a login with `user:password`. Raises Unauthorized, TooManyAttempts."""
        await self.check_password(pair, address)
        user = pair.partition(b":")[0].decode("utf-8", "replace")
        marks = list(self._marks(user))
        if not marks:
            raise Unauthorized("Incorrect username or password")  # removed a moment ago
        is_plain = any(secrets.compare_digest(self._digest(pair), known) for known in self._plain)
        return self.sessions.issue(user, marks[0] if is_plain else marks[-1])

    def _marks(self, user: str) -> Iterator[bytes]:
        """What a user's passwords are known by: that of the settings first, then that of the file."""
        if user in self._passwords:
            yield b"plain:" + self._passwords[user].encode()
        kept = self._file.current().users.get(user)
        if kept:
            yield str(kept).encode()

    def _check_key(self, key: str, address: str) -> Caller:
        # A key cannot be guessed: the right one passes the brake also where someone else behind the address is slowed.
        name = self._file.current().find_key(key.encode())
        if name is None:
            self._brake.take(address)
            raise Unauthorized("Incorrect API key")
        return self._caller(name, self._file.current().key_allowance(name))

    def _user(self, name: str) -> Caller:
        return self._caller(name, self._file.current().user_allowance(name))

    def _caller(self, name: str, allowance: Allowance) -> Caller:
        return Caller(name=name, allowance=ADMINISTRATOR if name in self._admins else allowance)

    async def check_password(self, pair: bytes, address: str) -> None:
        """Let `user:password` pass, or not. Raises Unauthorized, TooManyAttempts.

        Requests with the same pair at the same time are one attempt, and wait for the same hash.
        """
        digest = self._digest(pair)
        proof = self._proofs.get(digest)
        if proof is None:
            self._brake.take(address)
            if self._is_known(digest):
                self._brake.give_back(address)
                return
            proof = self._proofs[digest] = asyncio.ensure_future(self._prove(pair, digest, address))
        if not await asyncio.shield(proof):  # whoever goes away takes it from nobody else
            raise Unauthorized("Incorrect username or password")

    def _is_known(self, digest: bytes) -> bool:
        """Whether it is one of the settings' pairs, or was right before. Every one is compared in full."""
        if self._proven_by is not self._file.current():
            self._proven_by = self._file.current()
            self._proven.clear()
        matches = [secrets.compare_digest(digest, known) for known in (*self._plain, *self._proven)]
        return any(matches)

    async def _prove(self, pair: bytes, digest: bytes, address: str) -> bool:
        """Whether the pair is in the file."""
        credentials = self._file.current()
        try:
            if not credentials.users:
                return False
            if not await to_thread.run_sync(_matches, credentials.users, pair, limiter=self._hashers):
                return False
        finally:
            del self._proofs[digest]
        self._brake.give_back(address)
        if self._proven_by is credentials:
            self._proven.add(digest)
        return True

    def _digest(self, pair: bytes) -> bytes:
        return hashlib.blake2b(pair, key=self._secret, digest_size=32).digest()


class Guard:
    """ASGI middleware that asks for credentials before anything of a request's body is read."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        caller = Caller(name=NOBODY, allowance=_NOTHING)
        if not is_open(scope):
            try:
                caller = await self._gate.check_request(scope)
            except DarkroomError as error:
                if isinstance(error, Unauthorized) and _is_page(scope):
                    await _lead_to_login(scope)(scope, receive, send)
                else:
                    await turn_away(error, scope, receive, send)
                return
        await self._app({**scope, OWNER: caller.name, ALLOWANCE: caller.allowance}, receive, send)


def is_open(scope: Mapping[str, Any]) -> bool:
    """Whether a connection is served to everybody."""
    path = route_of(scope)
    if path in OPEN or path.startswith(OPEN_BELOW):
        return True
    return bool(_SIGNABLE.fullmatch(path)) and b"signature=" in scope.get("query_string", b"")


async def turn_away(error: DarkroomError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a connection with an error before any route has seen it."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:120]})
        return
    answer = openai.answer_error(error) if route_of(scope).startswith(openai.PREFIX) else answer_error(error)
    if isinstance(error, Unauthorized) and Headers(scope=scope).get("sec-fetch-site") != "same-origin":
        # To a script of this server's own pages it is no use: the browser would ask with a window of its own.
        answer.headers["WWW-Authenticate"] = 'Basic realm="darkroom", charset="UTF-8"'
    await answer(scope, receive, send)


def _is_page(scope: Scope) -> bool:
    """Whether a person's browser wants to show what it asks for."""
    if scope["type"] != "http" or scope["method"] != "GET" or route_of(scope).startswith(_FOR_PROGRAMS):
        return False
    headers = Headers(scope=scope)
    navigates = headers.get("sec-fetch-mode", "navigate") == "navigate"
    return "authorization" not in headers and "text/html" in headers.get("accept", "") and navigates


def _lead_to_login(scope: Scope) -> Response:
    query = scope["query_string"].decode("latin-1")
    wanted = quote(scope["path"], safe="/:@!$&'()*+,;=~") + (f"?{query}" if query else "")
    return RedirectResponse(login_address(scope.get("root_path", ""), wanted), 303, {"Cache-Control": "no-store"})


def _session_secret(settings: Settings) -> bytes:
    """What sessions are signed with. Where none can be kept, they end with the process."""
    fresh = secrets.token_bytes(32)
    if not settings.is_guarded:
        return fresh
    try:
        return kept_secret(settings.signing_key, settings.data_dir / "signing-key", fresh)
    except OSError as error:
        log.warning("logins will not outlive this process: %s: %s", error.filename, error.strerror)
        return fresh


def _unpack(value: str) -> bytes:
    """The `user:password` of Basic credentials, in UTF-8. Raises Unauthorized.

    Older programs encode it as Latin-1 (RFC 7617, section 2.1 leaves it open).
    """
    try:
        pair = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise Unauthorized("Invalid authentication credentials") from None
    if b":" not in pair:
        raise Unauthorized("Invalid authentication credentials")
    try:
        pair.decode()
    except UnicodeDecodeError:
        return pair.decode("latin-1").encode()
    return pair


def _matches(users: Mapping[str, PasswordHash], pair: bytes) -> bool:
    user, _, password = pair.partition(b":")
    return users.get(user.decode("utf-8", "replace"), _DECOY).matches(password)


class _File:
    """The users and keys of a file, read anew when it has changed, and those that never change. Nobody passes by a file
    that cannot be read.
    """

    def __init__(self, path: Path | None, fixed: Credentials) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._fixed = fixed
        self._credentials = fixed

    def current(self) -> Credentials:
        """The same object as long as the file stays as it is."""
        if self._path is None:
            return self._credentials
        try:
            found = self._path.stat()
            seen: tuple[int, ...] = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            seen = ()
        if seen != self._seen:
            self._seen = seen
            self._credentials = self._fixed.joined(self._read(self._path))
        return self._credentials

    def _read(self, path: Path) -> Credentials:
        try:
            return read(path)
        except CredentialsError as error:
            log.error("%s; nobody of it is let in", error)
            return Credentials()
