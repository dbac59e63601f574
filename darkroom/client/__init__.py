"""A client of a Darkroom server, in two forms of one kind: `Client` waits, `AsyncClient` is awaited.

    from darkroom.client import Client

    with Client("http://127.0.0.1:7860") as darkroom:
        job = darkroom.wait(darkroom.submit("txt2img", prompt="a red apple"))
        for image in job.images:
            Path(f"{image.seed}.png").write_bytes(darkroom.file(image))

Needs httpx: `pip install 'darkroom[client]'`.
"""

from darkroom.client.asynchronous import AsyncClient
from darkroom.client.conversation import Refused
from darkroom.client.models import Entry, Happening, Image, Job, JobError, Page
from darkroom.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "Entry", "Happening", "Image", "Job", "JobError", "Page", "Refused"]
