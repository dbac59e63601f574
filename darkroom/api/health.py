"""Whether the server lives, whether it can draw yet, and how long its queue is. Never behind a password."""

from typing import Any

from fastapi import APIRouter, Response

from darkroom import __version__
from darkroom.api.context import Shared

router = APIRouter(tags=["health"])


@router.get("/health")
def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "version": __version__}


@router.get("/ready")
def ready(context: Shared, response: Response) -> dict[str, bool]:
    """200 once the first checkpoint is loaded and warm, 503 before."""
    is_ready = context.engine.ready()
    response.status_code = 200 if is_ready else 503
    return {"ready": is_ready}


@router.get("/queue/status")
def queue_status(context: Shared) -> dict[str, Any]:
    """A1111: some clients try the connection with this route of its web framework."""
    waiting = len(context.queued())
    return {
        "msg": "estimation",
        "rank": None,
        "queue_size": waiting,
        "avg_event_process_time": None,
        "avg_event_concurrent_process_time": None,
        "rank_eta": None,
        "queue_eta": 0,
    }


@router.get("/internal/ping")
def ping() -> dict[str, Any]:
    """The process answers."""
    return {}
