"""What a server tells of jobs and pictures, as values. Times are Unix time, durations seconds."""

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")

State = Literal["queued", "running", "done", "interrupted", "failed", "cancelled"]
FINAL: frozenset[State] = frozenset({"done", "interrupted", "failed", "cancelled"})


class Value(BaseModel):
    """A newer server may tell more than this client knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class JobError(Value):
    """Why a job failed: `code` is stable, `detail` is for people."""

    code: str
    detail: str


class Image(Value):
    """A picture that a job made; `url` and `thumbnail` are paths of the server."""

    id: str
    job_id: str
    place: int
    url: str
    thumbnail: str
    media_type: str
    width: int | None
    height: int | None
    bytes: int
    sha256: str
    seed: int | None
    model: str | None
    model_hash: str | None
    infotext: str
    tags: tuple[str, ...]
    owner: str
    created_at: float


class Entry(Value):
    """Who asked for what and when. `work` is in megapixels times steps; the job and its pictures may be gone."""

    id: str
    owner: str
    at: float
    kind: str
    state: str
    ended_at: float | None
    model: str | None
    prompt: str
    seed: int | None
    width: int | None
    height: int | None
    steps: int | None
    images: int | None
    work: float | None
    priority: int


class Webhook(Value):
    """Somebody who is told of a job, and whether that has worked: `waiting`, `delivered`, `given_up` or `unwanted`."""

    id: str
    url: str
    events: tuple[str, ...]
    state: str
    tries: int
    next_at: float | None
    delivered_at: float | None
    error: str | None


class Job(Value):
    """A job. `progress` is 0..1, `position` how many jobs are before it in the queue."""

    id: str
    kind: str
    state: State
    owner: str
    asynchronous: bool
    priority: int
    position: int | None
    progress: float
    eta_s: float | None
    model: str | None
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    wait_s: float | None
    run_s: float | None
    attempts: int
    http_status: int | None
    error: JobError | None
    images: tuple[Image, ...]
    webhooks: tuple[Webhook, ...] = ()
    version: str = ""

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state in FINAL


class Page(Value, Generic[T]):
    """A part of a list; `next` is the `before` of the following part, None for the last."""

    items: tuple[T, ...]
    next: str | None


class Happening(Value):
    """Something that happened to a job: `queued`, `started`, `progress`, `preview`, or its end."""

    id: str
    event: str
    data: Mapping[str, Any]
