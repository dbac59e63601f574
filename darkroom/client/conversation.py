"""What is said to a server and what its answers mean, without saying it: each question is a generator that yields
requests and is sent their answers. The two clients differ in nothing but how they carry them.
"""

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from darkroom.client.models import Entry, Happening, Image, Job, Page

T = TypeVar("T")

ROUTES: Mapping[str, str] = MappingProxyType(
    {
        "txt2img": "/sdapi/v1/txt2img",
        "img2img": "/sdapi/v1/img2img",
        "extras": "/sdapi/v1/extra-single-image",
        "interrogate": "/sdapi/v1/interrogate",
        "merge": "/models/merge",
        "generate": "/generate/",
        "generations": "/v1/images/generations",
    }
)
"""Which route does a kind of work."""


class Answer(Protocol):
    """What comes back from a server."""

    @property
    def status_code(self) -> int: ...

    @property
    def content(self) -> bytes: ...

    def json(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    method: str
    path: str
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)


Question = Generator[Ask, Answer, T]


class Refused(Exception):
    """The server said no: `status` is HTTP's, `code` is stable, the text is for people."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail


def submit(kind: str, fields: Mapping[str, Any], key: str | None, priority: int | None = None) -> Question[Job]:
    """Have a server promise a job."""
    if kind not in ROUTES:
        raise ValueError(f"kind: {kind!r} is not known; known: {', '.join(ROUTES)}")
    headers = {"Prefer": "respond-async", **({"Idempotency-Key": key} if key else {})}
    if priority is not None:
        headers["X-Darkroom-Priority"] = str(priority)
    answer = yield Ask(method="POST", path=ROUTES[kind], json=fields, headers=headers)
    return Job.model_validate(_checked(answer).json())


def job(job_id: str) -> Question[Job]:
    """Where a job stands."""
    return Job.model_validate(_checked((yield Ask(method="GET", path=f"/jobs/{job_id}"))).json())


def jobs(params: Mapping[str, Any]) -> Question[Page[Job]]:
    """A part of the list of jobs."""
    found = _checked((yield Ask(method="GET", path="/jobs", params=_given(params)))).json()
    return Page[Job](items=tuple(map(Job.model_validate, found["jobs"])), next=found["next"])


def audit(params: Mapping[str, Any]) -> Question[Page[Entry]]:
    """A part of the list of who asked for what."""
    found = _checked((yield Ask(method="GET", path="/audit", params=_given(params)))).json()
    return Page[Entry](items=tuple(map(Entry.model_validate, found["entries"])), next=found["next"])


def images(params: Mapping[str, Any]) -> Question[Page[Image]]:
    """A part of the list of pictures."""
    found = _checked((yield Ask(method="GET", path="/images", params=_given(params)))).json()
    return Page[Image](items=tuple(map(Image.model_validate, found["images"])), next=found["next"])


def result(job_id: str) -> Question[dict[str, Any]]:
    """The answer that waiting would have given."""
    document: dict[str, Any] = _checked((yield Ask(method="GET", path=f"/jobs/{job_id}/result"))).json()
    return document


def cancel(job_id: str, *, forget: bool) -> Question[Job]:
    """Drop a job."""
    answer = yield Ask(method="DELETE", path=f"/jobs/{job_id}", params={"forget": forget})
    return Job.model_validate(_checked(answer).json())


def interrupt(job_id: str) -> Question[Job]:
    """Stop a job and keep its pictures."""
    return Job.model_validate(_checked((yield Ask(method="POST", path=f"/jobs/{job_id}/interrupt"))).json())


def file(path: str) -> Question[bytes]:
    """A picture's file."""
    return _checked((yield Ask(method="GET", path=path))).content


def events(job_id: str, last: str | None, *, previews: bool) -> Ask:
    """The stream of what happens to a job from an event on."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    return Ask(method="GET", path=f"/jobs/{job_id}/events", headers=headers, params={"previews": previews})


class Reader:
    """Puts the lines of a stream of events together."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def read(self, line: str) -> Iterator[Happening]:
        """Take a line; the event that it ends, if it ends one."""
        if line.startswith(":"):
            return
        if line:
            name, _, value = line.partition(": ")
            self._fields[name] = value
            return
        if "event" in self._fields:
            data = json.loads(self._fields.get("data", "{}"))
            yield Happening(id=self._fields.get("id", ""), event=self._fields["event"], data=data)
        self._fields = {}


def check(answer: Answer) -> None:
    """Raise Refused for anything but success."""
    _checked(answer)


def _checked(answer: Answer) -> Answer:
    if answer.status_code < 400:
        return answer
    try:
        document = answer.json()
    except ValueError:
        document = {}
    document = document if isinstance(document, dict) else {}
    detail = document.get("detail") or document.get("errors") or document.get("error") or ""
    raise Refused(
        answer.status_code, str(document.get("code", "")), detail if isinstance(detail, str) else json.dumps(detail)
    )


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
