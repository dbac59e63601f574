"""Pictures from and to bytes: what clients send is decoded within limits, what they get carries its generation text.

Knows file formats and base64. Knows nothing of masks, jobs or requests beyond the name of the field to blame.
"""

import base64
import binascii
import io
import math
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from darkroom.errors import BadImage

Pixels = NDArray[np.uint8]
"""RGB pixels `[H, W, 3]`."""

Format = Literal["png", "jpg", "jpeg", "webp", "avif", "gif"]

_KEYWORD = re.compile(r"[ -~]{1,79}")
"""What PNG takes as the name of a text."""

READABLE = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
"""The decoders that untrusted bytes may reach."""

ALLOWED = "a PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF picture as base64, with or without a data URI's head"

MEDIA_TYPES: dict[str, str] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
}

_LONGEST_SIDES = {"jpg": 65535, "jpeg": 65535, "webp": 16383, "gif": 65535, "avif": 65535}
"""Pixels; a longer picture does not fit the format."""

# What Pillow's decoders raise on damaged or hostile bytes, found by feeding them such.
_DECODE_FAILURES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # where the process makes errors of them
)


def decode_base64(text: object, *, field: str, max_pixels: int) -> Image.Image:
    """A picture from the text of a request, upright, with palette and colour-key transparency made an alpha channel.

    Raises BadImage: not base64, no readable format, more than `max_pixels`, damaged, or a URL.
    """
    return decode_bytes(_bytes_of(text, field), field=field, max_pixels=max_pixels)


def decode_bytes(data: bytes, *, field: str, max_pixels: int) -> Image.Image:
    """As `decode_base64`, from the file's bytes."""
    shown = f"{len(data)} bytes"
    try:
        picture = Image.open(io.BytesIO(data), formats=READABLE)
        width, height = picture.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(field, shown, f"at most {max_pixels} pixels") from None
    except _DECODE_FAILURES:
        raise BadImage(field, shown, ALLOWED) from None
    # The header is all that was read so far: a small file may claim, and decode to, gigabytes.
    if width * height > max_pixels:
        raise BadImage(field, f"{width}x{height}", f"at most {max_pixels} pixels")
    try:
        picture.load()
        return _upright(picture)
    except _DECODE_FAILURES:
        raise BadImage(field, shown, "a picture that is complete and undamaged") from None


def is_address(text: object) -> bool:
    """Whether a text names a picture elsewhere instead of being one."""
    return isinstance(text, str) and text[:8].lower().startswith(("http://", "https://"))


def _bytes_of(text: object, field: str) -> bytes:
    if not isinstance(text, str):
        raise BadImage(field, text, ALLOWED)
    if is_address(text):
        raise BadImage(field, text, "the picture itself as base64; addresses are not fetched")
    if text[:256].lstrip()[:5].lower() == "data:":
        text = text.partition(",")[2]
    packed = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    if not packed:
        raise BadImage(field, text, ALLOWED)
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadImage(field, text, ALLOWED) from None


def _upright(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in {"P", "RGB"} and isinstance(picture.info.get("transparency"), bytes):
        return picture.convert("RGBA")
    if picture.mode in {"PA", "LA", "La"}:
        return picture.convert("RGBA")
    if picture.mode.startswith("I"):  # 16 bits a channel: Pillow would clip instead of scale
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return picture


def flatten(picture: Image.Image, background: str) -> Image.Image:
    """RGB, with what is transparent laid over `background` (`#rrggbb`)."""
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, background)
        ground.paste(picture, mask=picture)
        picture = ground
    return picture.convert("RGB")


def to_pixels(picture: Image.Image) -> Pixels:
    """The picture's RGB pixels."""
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def fitting(picture: Pixels, file_format: Format) -> Format:
    """The format, or PNG where the picture is too long for it."""
    return file_format if max(picture.shape[:2]) <= _LONGEST_SIDES.get(file_format, math.inf) else "png"


def encode(picture: Pixels, file_format: Format, *, text: str = "", quality: int = 80, lossless: bool = False) -> bytes:
    """A file's bytes, with a generation text; see `encode_image`."""
    notes = {"parameters": text} if text else {}
    return encode_image(Image.fromarray(picture), file_format, notes=notes, quality=quality, lossless=lossless)


def encode_image(
    image: Image.Image, file_format: Format, *, notes: Mapping[str, str], quality: int = 80, lossless: bool = False
) -> bytes:
    """A file's bytes. All `notes` become texts of a PNG; other formats hold the one called `parameters`: a GIF as its
    comment, the others as EXIF user comment.

    `quality` (1..100) is that of JPEG, WebP and AVIF; `lossless` is for WebP alone.
    """
    buffer = io.BytesIO()
    text = notes.get("parameters", "")
    match file_format:
        case "png":
            image.save(buffer, "PNG", pnginfo=_png_texts(notes))
        case "gif":
            image.save(buffer, "GIF", comment=text.encode())
        case "webp":
            image.convert("RGB").save(buffer, "WEBP", quality=quality, lossless=lossless, exif=_user_comment(text))
        case "avif":
            image.convert("RGB").save(buffer, "AVIF", quality=quality, exif=_user_comment(text))
        case "jpg" | "jpeg":
            image.convert("RGB").save(buffer, "JPEG", quality=quality, exif=_user_comment(text))
    return buffer.getvalue()


def _png_texts(notes: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for name, text in notes.items():
        if _KEYWORD.fullmatch(name):
            chunks.add_text(name, text)
    return chunks


def to_base64(data: bytes) -> str:
    """Plain base64, without a data URI's head."""
    return base64.b64encode(data).decode("ascii")


def _user_comment(text: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif.tobytes()
