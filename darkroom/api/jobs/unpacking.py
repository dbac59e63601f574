"""The pictures in an answer: taken out to be kept as files, and put back to give the very answer again, byte for byte.

Knows the shapes of the answers of every route that makes pictures.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
_ABSENT = "\u0000picture "
"""What stands for a picture in a body: JSON never holds this character unescaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A picture of an answer: its file, what the answer says of it, and its place among all."""

    place: int
    data: bytes
    seed: int | None = None
    infotext: str = ""
    model: str | None = None
    model_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """An answer without its pictures, and the pictures."""

    body: bytes
    pictures: tuple[Found, ...] = ()


def unpack(media_type: str, body: bytes, headers: Mapping[str, str]) -> Unpacked:
    """Take the pictures out of an answer's body."""
    if media_type.startswith("image/"):
        seed = headers.get("x-seed", "")
        found = Found(place=0, data=body, seed=int(seed) if seed.lstrip("-").isdigit() else None)
        return Unpacked(body=_mark(0).encode(), pictures=(found,))
    if media_type != JSON:
        return Unpacked(body=body)
    document = _read(body)
    if document is None:
        return Unpacked(body=body)
    pictures: list[Found] = []
    text = body.decode()
    for place, encoded in enumerate(_encoded(document)):
        data = _decode(encoded)
        if data is None or len(encoded) < len(_mark(place)):
            return Unpacked(body=body)
        pictures.append(Found(place=place, data=data, **_known(document, place)))
        text = text.replace(f'"{encoded}"', json.dumps(_mark(place)), 1)
    return Unpacked(body=text.encode(), pictures=tuple(pictures))


def pack(body: bytes, pictures: Sequence[bytes | None], *, media_type: str) -> bytes:
    """Put pictures back where they were taken from; one that is gone leaves an empty text."""
    if media_type.startswith("image/"):
        return pictures[0] or b"" if pictures else body
    text = body.decode() if pictures else ""
    for place, data in enumerate(pictures):
        encoded = base64.b64encode(data).decode() if data else ""
        text = text.replace(json.dumps(_mark(place)), f'"{encoded}"', 1)
    return text.encode() if pictures else body


def link(body: bytes, addresses: Sequence[str]) -> bytes:
    """Put addresses where pictures were."""
    text = body.decode()
    for place, address in enumerate(addresses):
        text = text.replace(json.dumps(_mark(place)), json.dumps(address), 1)
    return text.encode()


def _mark(place: int) -> str:
    return f"{_ABSENT}{place}"


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _encoded(document: Mapping[str, Any]) -> list[str]:
    """The pictures of an answer as they stand in it, in order."""
    images = document.get("images")
    if isinstance(images, list):
        return [image for image in images if isinstance(image, str)]
    if isinstance(document.get("image"), str):
        return [document["image"]]
    data = document.get("data")
    entries = data if isinstance(data, list) else []
    return [
        entry["b64_json"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("b64_json"), str)
    ]


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _known(document: Mapping[str, Any], place: int) -> dict[str, Any]:
    """What an answer says of a picture."""
    info = document.get("info")
    told = _read(info.encode()) if isinstance(info, str) and len(info) < 1 << 20 else None
    if told is None:
        entry = _at(document.get("data"), place)
        seed = entry.get("seed") if isinstance(entry, dict) else _at(document.get("seeds"), place)
        return {"seed": seed, "infotext": _at(document.get("infotexts"), place) or ""}
    number = place - int(told.get("index_of_first_image") or 0)
    return {
        "seed": _at(told.get("all_seeds"), number) if number >= 0 else None,
        "infotext": _at(told.get("infotexts"), place) or "",
        "model": told.get("sd_model_name"),
        "model_hash": told.get("sd_model_hash"),
    }


def _at(values: object, place: int) -> Any:
    return values[place] if isinstance(values, list) and 0 <= place < len(values) else None
