"""How the pages speak to the API: over its own routes, as the person who looks at the page.

Every request carries the viewer's credentials and goes through the server's whole stack, so a page can do and see what
that person could with `curl`, and nothing else. Within one process the requests need no socket.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import gradio as gr
import httpx
from starlette.types import ASGIApp, Scope

from darkroom.ui.mount import APPLICATION

_FORWARDED = ("authorization", "cookie", "accept-language")
_FIELD = re.compile(r"(?P<field>[A-Za-z_][\w.]*(?:\[\d+\])?)(?: \([^)]*\))?: ")
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """What is wrong with a request, in words. `field` is the request's field; empty if it is about none."""

    field: str
    text: str


class Refused(Exception):
    """The API said no."""

    def __init__(self, status: int, code: str, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.text}" if error.field else error.text for error in errors))
        self.status = status
        self.code = code
        self.errors = errors


class Service(AbstractAsyncContextManager["Service"]):
    """The API as one viewer sees it. Paths are those of the API: `/sdapi/v1/samplers`. Raises Refused."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, **params: Any) -> Any:
        """The JSON answer of a GET; parameters that are None are left out."""
        return (await self.send("GET", path, params=params)).json()

    async def post(self, path: str, body: object = None, **params: Any) -> Any:
        """The JSON answer of a POST of a JSON body; None where there is no content."""
        return _content(await self.send("POST", path, body=body, params=params))

    async def patch(self, path: str, body: object = None) -> Any:
        """The JSON answer of a PATCH."""
        return _content(await self.send("PATCH", path, body=body))

    async def put(self, path: str, body: object = None) -> Any:
        """The JSON answer of a PUT."""
        return _content(await self.send("PUT", path, body=body))

    async def delete(self, path: str, **params: Any) -> Any:
        """The JSON answer of a DELETE; None where there is no content."""
        return _content(await self.send("DELETE", path, params=params))

    async def submit(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have a route promise its work (`Prefer: respond-async`); the job's document."""
        answer = await self.send("POST", path, body=body, headers={"Prefer": "respond-async"})
        document: dict[str, Any] = answer.json()
        return document

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Any request. Raises Refused for anything but success."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        answer = await self._http.request(method, path, json=body, params=given, headers=headers)
        if answer.status_code >= 400:
            raise refusal(answer)
        return answer


def service(request: gr.Request) -> Service:
    """The API for whoever sent a page's event. Use it as an asynchronous context manager."""
    inner = request.request
    assert inner is not None, "events of a page come with their request"
    return service_of(inner.scope)


def service_of(scope: Scope) -> Service:
    """The API for whoever opened a connection to the pages."""
    application: ASGIApp = scope[APPLICATION]
    headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name.decode("latin-1") in _FORWARDED
    }
    # The page's own request has shown where it comes from, or would not have got here.
    headers["sec-fetch-site"] = "same-origin"
    host, port = (scope.get("client") or ("127.0.0.1", 0))[:2]
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False, client=(host, port))
    return Service(
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers, timeout=_TIMEOUT_S)
    )


def refusal(answer: httpx.Response) -> Refused:
    """What an answer of the API refuses, in words, by field."""
    try:
        document = answer.json()
    except ValueError:
        document = {}
    document = document if isinstance(document, dict) else {}
    detail = document.get("detail") or document.get("errors") or document.get("error") or answer.reason_phrase
    return Refused(answer.status_code, str(document.get("code", "")), tuple(_errors(detail)))


def _errors(detail: object) -> list[FieldError]:
    if isinstance(detail, list):
        return [FieldError(field=_field(entry), text=str(entry.get("msg", ""))) for entry in detail]
    text = str(detail)
    named = _FIELD.match(text)
    if named is None:
        return [FieldError(field="", text=text)]
    return [FieldError(field=named["field"], text=text[named.end() :])]


def _field(entry: Mapping[str, Any]) -> str:
    return next((part for part in entry.get("loc", ()) if isinstance(part, str) and part != "body"), "")


def _content(answer: httpx.Response) -> Any:
    return answer.json() if answer.content else None
