"""Reads the generation text and the other notes out of a picture. Does not interpret the text."""

import json
from collections.abc import Mapping

from PIL import ExifTags, Image

_TECHNICAL = frozenset(
    {
        "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "exif", "loop", "background", "timestamp",
        "duration", "progressive", "progression", "icc_profile", "chromaticity", "photoshop", "transparency", "gamma",
        "srgb", "interlace", "version", "extension", "adobe", "adobe_transform", "compression", "xmp", "mp", "mpoffset",
    }
)  # fmt: skip
"""Entries of Pillow's info that say how a file is built, not what it shows."""

_COMMENT_CODES = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii", b"\0" * 8: "utf-8"}


def read_notes(picture: Image.Image, *, samplers: Mapping[str, str] | None = None) -> tuple[str, dict[str, str]]:
    """The generation text ("" if there is none) and the other entries.

    An EXIF user comment beats the PNG chunk `parameters`; a comment, as GIFs have it, comes last. `samplers` has the
    names that samplers have here by those, in lower case, that NovelAI gives them.
    """
    items = {str(key): _as_text(value) for key, value in picture.info.items() if key not in _TECHNICAL}
    comment = items.pop("comment", "")
    text = items.pop("parameters", "") or comment
    if items.get("Software") == "NovelAI":
        text = _novel_ai(items, picture.size, samplers or {}) or text
    return read_user_comment(picture) or text, items


def read_user_comment(picture: Image.Image) -> str:
    """The EXIF user comment, or "" where there is none or it cannot be read."""
    try:
        value = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, Warning):
        return ""
    if isinstance(value, str):
        return value
    code, text = bytes(value[:8]), bytes(value[8:])
    return text.decode(_COMMENT_CODES.get(code, "utf-8"), "replace").strip("\0")


def _as_text(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode()


def _novel_ai(items: Mapping[str, str], size: tuple[int, int], samplers: Mapping[str, str]) -> str:
    """The text that this program would have written for a picture of NovelAI's."""
    try:
        notes = json.loads(items.get("Comment", ""))
        sampler = samplers.get(str(notes.get("sampler")).lower(), "Euler a")
        return (
            f"{items.get('Description', '')}\nNegative prompt: {notes['uc']}\n"
            f"Steps: {notes['steps']}, Sampler: {sampler}, CFG scale: {notes['scale']}, Seed: {notes['seed']}, "
            f"Size: {size[0]}x{size[1]}, Clip skip: 2, ENSD: 31337"
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
