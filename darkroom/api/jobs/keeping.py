"""What is left of a finished request: its pictures as files, and its answer without them.

Called from worker threads.
"""

import hashlib
import io
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from darkroom.api.jobs.unpacking import Found, pack, unpack
from darkroom.history.files import Files
from darkroom.history.gallery import Gallery
from darkroom.history.ledger import Answered, Kept, Ledger
from darkroom.settings import Settings

_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "AVIF": "avif", "GIF": "gif"}
_UNKNOWN = "bin", "application/octet-stream"


def keep_pictures(files: Files, job_id: str, owner: str, answered: Answered) -> tuple[Answered, list[Kept]]:
    """Put the pictures of an answer where they are safe; what is left of the answer, and the pictures. A job that is
    done twice overwrites its own files. Raises FilesUnavailable.
    """
    unpacked = unpack(answered.headers.get("content-type", ""), answered.body, answered.headers)
    now = time.time()
    kept = []
    for found in unpacked.pictures:
        one = _describe(found, job_id, owner, now)
        files.put(one.key, found.data, one.media_type)
        kept.append(one)
    return replace(answered, body=unpacked.body), kept


def rebuild(answered: Answered, pictures: Sequence[Kept], files: Files) -> bytes:
    """The body of an answer with its pictures in it again."""
    data = [files.find(one.key) for one in pictures]
    return pack(answered.body, data, media_type=answered.headers.get("content-type", ""))


def remove_files(files: Files, keys: Sequence[str]) -> None:
    """Let files go whose pictures are forgotten."""
    for key in keys:
        files.remove(key)
        files.remove(thumbnail_key(key))


def tidy(gallery: Gallery, ledger: Ledger, files: Files, settings: Settings) -> int:
    """Remove what is older or more than the operator wants to keep. How many pictures there were."""
    oldest = time.time() - settings.history_days * 86_400
    keys = gallery.drop(older_than=oldest, beyond_bytes=int(settings.history_gb * 1e9))
    remove_files(files, keys)
    ledger.forget_before(oldest)
    return len(keys)


def thumbnail_key(key: str) -> str:
    """Where the small form of a picture is kept."""
    return key.rsplit(".", 1)[0] + "-small.webp"


def media_type(data: bytes) -> str:
    """What a picture's file is."""
    return _header(data)[1]


def _describe(found: Found, job_id: str, owner: str, now: float) -> Kept:
    ending, media_type, width, height = _header(found.data)
    return Kept(
        id=secrets.token_hex(16),
        job_id=job_id,
        place=found.place,
        owner=owner,
        created_at=now,
        # A folder for every 256th of all jobs, so that none grows without end.
        key=f"{job_id[:2]}/{job_id}-{found.place}.{ending}",
        media_type=media_type,
        size=len(found.data),
        sha256=hashlib.sha256(found.data).hexdigest(),
        width=width,
        height=height,
        seed=found.seed,
        model=found.model,
        model_hash=found.model_hash,
        infotext=found.infotext,
    )


def _header(data: bytes) -> tuple[str, str, int | None, int | None]:
    """The ending of a picture's file, its media type, width and height."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind = picture.format or ""
            ending = _ENDINGS.get(kind, "bin")
            return ending, picture.get_format_mimetype() or _UNKNOWN[1], picture.width, picture.height
    except (OSError, ValueError, Image.DecompressionBombError):
        return (*_UNKNOWN, None, None)
