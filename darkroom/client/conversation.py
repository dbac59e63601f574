"""What is said to a server and what its answers mean, without saying it: each question is a generator that yields
requests and is sent their answers. The two clients differ in nothing but how they carry them.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
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


RETRIES = 60
BEGINNING_RETRIES = 5
RETRY_S = 1.0
"""Seconds between two of them."""


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


def rerun(job_id: str) -> Question[Job]:
    """Have the same done again, as a new job."""
    return Job.model_validate(_checked((yield Ask(method="POST", path=f"/jobs/{job_id}/rerun"))).json())


def tag(image_id: str, tags: Sequence[str]) -> Question[Image]:
    """Have a picture carry exactly these tags."""
    answer = yield Ask(method="PUT", path=f"/images/{image_id}/tags", json={"tags": list(tags)})
    return Image.model_validate(_checked(answer).json())


def remove(image_id: str) -> Question[None]:
    """Remove a picture."""
    _checked((yield Ask(method="DELETE", path=f"/images/{image_id}")))


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


class Patience:
    """How often a stream that broke is taken up: for long once it has said something, since a server that is started
    again takes a while.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._most = BEGINNING_RETRIES

    def renew(self) -> None:
        """Something was heard."""
        self._failures, self._most = 0, RETRIES

    def lasts(self) -> bool:
        """Whether to try again, after one more failure."""
        self._failures += 1
        return self._failures <= self._most


def passes(refused: Refused) -> bool:
    """Whether a refusal is one for the moment: the server stops, or does not answer behind its proxy."""
    return refused.status in (502, 503, 504)


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
