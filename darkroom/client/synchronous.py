"""The client that waits."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from darkroom.client import conversation
from darkroom.client.conversation import Ask, Patience, Question, Reader, Refused, passes
from darkroom.client.models import FINAL, Entry, Happening, Image, Job, Page

T = TypeVar("T")

STREAM_TIMEOUT = httpx.Timeout(10.0, read=60.0)
"""A living stream says something every 15 seconds."""


class Client:
    """A server at an address. `key` is an API key, `auth` a user with a password. A context manager."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:7860",
        *,
        key: str | None = None,
        auth: tuple[str, str] | None = None,
        timeout_s: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, auth=auth, timeout=timeout_s, transport=transport, follow_redirects=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def submit(
        self,
        kind: str = "txt2img",
        *,
        idempotency_key: str | None = None,
        priority: int | None = None,
        **fields: Any,
    ) -> Job:
        """Have the server promise a job; `fields` are the request's, as its route knows them. Raises Refused."""
        return self._carry(conversation.submit(kind, fields, idempotency_key, priority))

    def job(self, job_id: str) -> Job:
        """Where a job stands. Raises Refused."""
        return self._carry(conversation.job(job_id))

    def jobs(
        self, *, state: str | None = None, kind: str | None = None, before: str | None = None, limit: int = 50
    ) -> Page[Job]:
        """Jobs, the last submitted first."""
        params = {"state": state, "kind": kind, "before": before, "limit": limit}
        return self._carry(conversation.jobs(params))

    def audit(self, **wanted: Any) -> Page[Entry]:
        """Who asked for what, the newest first: by owner, kind, since, until; in parts by before and limit."""
        return self._carry(conversation.audit(wanted))

    def images(self, **wanted: Any) -> Page[Image]:
        """Pictures, the newest first: by text, model, seed, tag, job, since, until; in parts by before and limit."""
        return self._carry(conversation.images(wanted))

    def result(self, job_id: str) -> dict[str, Any]:
        """The answer that waiting would have given. Raises Refused as long as there is none."""
        return self._carry(conversation.result(job_id))

    def cancel(self, job_id: str, *, forget: bool = False) -> Job:
        """Drop a job; with `forget` remove an ended one with its pictures."""
        return self._carry(conversation.cancel(job_id, forget=forget))

    def interrupt(self, job_id: str) -> Job:
        """Stop a job and keep the pictures so far."""
        return self._carry(conversation.interrupt(job_id))

    def rerun(self, job_id: str) -> Job:
        """Have the same done again, with the same seeds, as a new job. Raises Refused."""
        return self._carry(conversation.rerun(job_id))

    def tag(self, image: Image, *tags: str) -> Image:
        """Have a picture carry exactly these tags."""
        return self._carry(conversation.tag(image.id, tags))

    def remove(self, image: Image) -> None:
        """Remove a picture, its record and its file."""
        self._carry(conversation.remove(image.id))

    def file(self, image: Image, *, small: bool = False) -> bytes:
        """A picture's file, or a small form of it."""
        return self._carry(conversation.file(image.thumbnail if small else image.url))

    def wait(self, job: Job | str) -> Job:
        """The job once it has ended."""
        job_id = job if isinstance(job, str) else job.id
        for _ in self.events(job_id):
            pass
        return self.job(job_id)

    def events(self, job_id: str, *, previews: bool = False) -> Iterator[Happening]:
        """What happens to a job until it ends. A stream that breaks is taken up where it broke."""
        last: str | None = None
        patience = Patience()
        while True:
            try:
                for happening in self._listen(conversation.events(job_id, last, previews=previews)):
                    last = happening.id
                    patience.renew()
                    yield happening
                    if happening.event in FINAL:
                        return
                if not patience.lasts():
                    raise httpx.RemoteProtocolError("the stream of events ends before the job does")
            except httpx.TransportError:
                if not patience.lasts():
                    raise
            except Refused as refused:
                if not passes(refused) or not patience.lasts():
                    raise
            time.sleep(conversation.RETRY_S)

    def _listen(self, ask: Ask) -> Iterator[Happening]:
        reader = Reader()
        with self._http.stream(
            ask.method, ask.path, headers=ask.headers, params=ask.params, timeout=STREAM_TIMEOUT
        ) as answer:
            if answer.status_code >= 400:
                answer.read()
                conversation.check(answer)
            for line in answer.iter_lines():
                yield from reader.read(line)

    def _carry(self, question: Question[T]) -> T:
        try:
            ask = next(question)
            while True:
                answer = self._http.request(ask.method, ask.path, json=ask.json, headers=ask.headers, params=ask.params)
                ask = question.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found
