"""How the server logs: lines for people, or one JSON object each for programs; and which job a line is about.

Knows the standard library's logging alone.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal

LogFormat = Literal["text", "json"]

_TEXT = "%(levelname)s:     %(message)s"
_job_id: Final[ContextVar[str]] = ContextVar("darkroom_job_id", default="")
_trace_id: Final[ContextVar[str]] = ContextVar("darkroom_trace_id", default="")


@contextmanager
def about(job_id: str) -> Iterator[None]:
    """What is logged inside, here and in the tasks and threads that are begun here, is about a job."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


def job_in_hand() -> str:
    """The job that is worked on here; empty if there is none."""
    return _job_id.get()


@contextmanager
def traced(trace_id: str) -> Iterator[None]:
    """What is logged inside belongs to a trace."""
    token = _trace_id.set(trace_id)
    try:
        yield
    finally:
        _trace_id.reset(token)


def trace_in_hand() -> str:
    """The trace that goes on here; empty if there is none."""
    return _trace_id.get()


def set_up(level: str, log_format: LogFormat) -> None:
    """Have everything logged to standard error. Called once, by the command line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("alembic", "httpx"):  # they tell of every part that is set up, and of every request that is sent
        logging.getLogger(chatty).setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `message`; `job_id`, `engine_job_id`, `trace_id`, `error`
    where there are any; of a request that was served `client`, `method`, `path` and `status`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        job_id = getattr(record, "job_id", "") or _job_id.get()
        if job_id:
            told["job_id"] = job_id
        engine_job_id = getattr(record, "engine_job_id", "")
        if engine_job_id:
            told["engine_job_id"] = engine_job_id
        trace_id = getattr(record, "trace_id", "") or _trace_id.get()
        if trace_id:
            told["trace_id"] = trace_id
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, _, status = record.args
            told |= {"client": client, "method": method, "path": path, "status": status}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)
