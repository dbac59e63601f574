"""`/sdapi/v1/server-kill`, `/server-restart`, `/server-stop`: ending the process, where the operator allowed that."""

import os
import signal

from fastapi import APIRouter, BackgroundTasks, Response

router = APIRouter(prefix="/sdapi/v1", tags=["server"])


@router.post("/server-kill", operation_id="kill_webui_sdapi_v1_server_kill_post")
def kill() -> None:
    """End the process at once; the connection is dropped and running jobs are lost."""
    os._exit(0)


@router.post("/server-restart", operation_id="restart_webui_sdapi_v1_server_restart_post", status_code=501)
def restart() -> Response:
    """Not possible: nothing here starts the server again. A1111: 501 without a body."""
    return Response(status_code=501)


@router.post("/server-stop", operation_id="stop_webui_sdapi_v1_server_stop_post")
def stop(background: BackgroundTasks) -> Response:
    """Stop as on Ctrl-C, after this answer: no new connections, a few seconds for those that are served."""
    background.add_task(signal.raise_signal, signal.SIGINT)
    return Response("Stopping.", background=background)
