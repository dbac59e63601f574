"""From OpenAI's requests to those of this engine: which checkpoint, how many steps, what is repainted."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from darkroom.api.checkpoints import find_checkpoint
from darkroom.api.models import Generation, Img2Img, Txt2Img, request_of
from darkroom.api.openai.errors import ParameterError, UnknownModelError
from darkroom.api.openai.models import EditRequest, GenerationRequest, ImageRequest
from darkroom.images.codecs import decode_bytes, to_base64
from darkroom.jobs.spec import CheckpointInfo
from darkroom.settings import Settings

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_FOREIGN = re.compile(r"(dall-e|gpt-|chatgpt-)", re.IGNORECASE)
"""How the names of OpenAI's own models begin, which clients send unless they are told another."""

_ADDRESSING = "dall-e"
_STEPS = {"low": 12, "medium": 20, "high": 30, "xhigh": 40, "max": 50}
_QUALITIES = {name: name for name in _STEPS} | {"auto": "medium", "standard": "medium", "hd": "high"}
_FORMATS = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}
_CROP = 1
"""The resize mode of a picture that has not the wanted shape."""

_MASKED_STRENGTH, _STRENGTH = 1.0, 0.75
_STEP_PX = 8
"""The sides of pictures are multiples of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request in this engine's words, and what its answer repeats: pictures as they are, or addresses of pictures.
    `ignored` and `warnings` as in `Prepared`.
    """

    wire: Generation
    inline: bool
    addressed: bool
    file_format: str
    quality: str
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def to_generation(
    wire: GenerationRequest, sent: Sequence[str], settings: Settings, checkpoints: Sequence[CheckpointInfo]
) -> Asked:
    """Pictures from a text. `sent` names the fields of the body. Raises ParameterError."""
    fields = _fields(wire, settings, checkpoints)
    size = _size(wire)
    if size:
        fields["width"], fields["height"] = size
    return _asked(wire, request_of(Txt2Img, fields), sent, checkpoints)


def to_edit(
    wire: EditRequest,
    sent: Sequence[str],
    files: Mapping[str, bytes],
    settings: Settings,
    checkpoints: Sequence[CheckpointInfo],
) -> Asked:
    """A picture changed, where its mask or it itself is transparent, or everywhere. `files` has `image` and maybe
    `mask`. Raises ParameterError, BadImage.
    """
    limit = settings.max_image_pixels
    picture = decode_bytes(files["image"], field="image", max_pixels=limit)
    mask = _mask(picture, files.get("mask"), limit)
    fields = _fields(wire, settings, checkpoints)
    fields["width"], fields["height"] = _size(wire) or _fitting(picture.size, settings)
    fields |= {"init_images": [to_base64(files["image"])], "resize_mode": _CROP, "inpaint_full_res": False}
    if mask:
        fields["mask"] = _packed(mask)
    default = _MASKED_STRENGTH if mask else _STRENGTH
    fields["denoising_strength"] = default if wire.strength is None else wire.strength
    return _asked(wire, request_of(Img2Img, fields), sent, checkpoints)


def _asked(
    wire: ImageRequest, generation: Generation, sent: Sequence[str], checkpoints: Sequence[CheckpointInfo]
) -> Asked:
    known = type(wire).model_fields
    return Asked(
        wire=generation,
        inline=wire.response_format != "url",
        addressed=wire.response_format == "url" or _expects_address(wire),
        file_format=_file_format(wire),
        quality=_quality(wire),
        ignored=tuple(name for name in sent if name not in known),
        warnings=tuple(_replaced(wire, checkpoints)),
    )


def _fields(wire: ImageRequest, settings: Settings, checkpoints: Sequence[CheckpointInfo]) -> dict[str, Any]:
    _refuse_impossible(wire)
    count = 1 if wire.n is None else wire.n
    if not 1 <= count <= settings.max_images:
        raise ParameterError("n", count, f"from 1 to {settings.max_images}")
    steps = _STEPS[_quality(wire)] if wire.steps is None else wire.steps
    # What is left out is for the checkpoint to say.
    names = ("negative_prompt", "seed", "cfg_scale", "sampler_name", "scheduler")
    given = {name: getattr(wire, name) for name in names if name in wire.model_fields_set}
    fields = {name: value for name, value in given.items() if value is not None}
    together = count <= settings.max_batch_size
    overrides = _overrides(wire, checkpoints)
    return {
        **fields,
        "prompt": wire.prompt,
        "steps": steps,
        "batch_size" if together else "n_iter": count,
        "override_settings": overrides,
    }


def _expects_address(wire: ImageRequest) -> bool:
    """Whether a client that does not say what it wants was written for models that answer with addresses."""
    return not wire.response_format and (wire.model or "").lower().startswith(_ADDRESSING)


def _refuse_impossible(wire: ImageRequest) -> None:
    if wire.response_format not in {None, "", "b64_json", "url"}:
        raise ParameterError("response_format", wire.response_format, "b64_json or url")
    if wire.background not in {None, "", "auto", "opaque"}:
        raise ParameterError("background", wire.background, "auto or opaque; pictures are drawn to their edges")
    if wire.stream:
        raise ParameterError("stream", wire.stream, "false; /sdapi/v1/progress shows a picture while it is drawn")


def _overrides(wire: ImageRequest, checkpoints: Sequence[CheckpointInfo]) -> dict[str, Any]:
    overrides: dict[str, Any] = {"samples_format": _file_format(wire)}
    if wire.output_compression is not None:
        if not 0 <= wire.output_compression <= 100:
            raise ParameterError("output_compression", wire.output_compression, "from 0 to 100")
        overrides["jpeg_quality"] = max(wire.output_compression, 1)
    checkpoint = _checkpoint(wire.model, checkpoints)
    if checkpoint:
        overrides["sd_model_checkpoint"] = checkpoint.title
    return overrides


def _checkpoint(name: str | None, checkpoints: Sequence[CheckpointInfo]) -> CheckpointInfo | None:
    """The checkpoint of a request; None for the one in use. Raises UnknownModelError."""
    found = find_checkpoint(checkpoints, name)
    if found is None and name and not _FOREIGN.match(name):
        raise UnknownModelError(name, ", ".join(info.model_name for info in checkpoints) or "none")
    return found


def _replaced(wire: ImageRequest, checkpoints: Sequence[CheckpointInfo]) -> Iterator[str]:
    if wire.model and _checkpoint(wire.model, checkpoints) is None:
        yield f"model {wire.model[:80]!r} is not here; the checkpoint in use drew instead"


def _quality(wire: ImageRequest) -> str:
    found = _QUALITIES.get((wire.quality or "auto").lower())
    if found is None:
        raise ParameterError("quality", wire.quality, f"one of {', '.join(_QUALITIES)}")
    return found


def _file_format(wire: ImageRequest) -> str:
    found = _FORMATS.get((wire.output_format or "png").lower())
    if found is None:
        raise ParameterError("output_format", wire.output_format, "one of png, jpeg, webp")
    return found


def _size(wire: ImageRequest) -> tuple[int, int] | None:
    """Width and height; None for auto."""
    if (wire.size or "auto").lower() == "auto":
        return None
    match = _SIZE.fullmatch(wire.size or "")
    if match is None:
        raise ParameterError("size", wire.size, "auto, or WIDTHxHEIGHT in pixels, such as 512x768")
    return int(match[1]), int(match[2])


def _fitting(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """The size of a picture, smaller where it is more than a request may ask for."""
    width, height = size
    room = (settings.max_pixels / (width * height)) ** 0.5
    scale = min(1.0, settings.max_width / width, settings.max_height / height, room)
    return _stepped(width * scale), _stepped(height * scale)


def _stepped(side: float) -> int:
    return max(int(side) // _STEP_PX * _STEP_PX, _STEP_PX)


def _mask(picture: Image.Image, data: bytes | None, max_pixels: int) -> Image.Image | None:
    """What is repainted, white, from what is wholly transparent; None for everything."""
    if data is None:
        clear = _clear(picture)
        return clear if clear and clear.getbbox() else None
    mask = decode_bytes(data, field="mask", max_pixels=max_pixels)
    if mask.size != picture.size:
        raise ParameterError("mask", f"{mask.width}x{mask.height}", f"the image's {picture.width}x{picture.height}")
    clear = _clear(mask)
    if clear is None:
        raise ParameterError("mask", mask.mode, "a picture with transparency: what is transparent is repainted")
    return clear


def _clear(picture: Image.Image) -> Image.Image | None:
    """White where a picture is wholly transparent; None where its kind of picture cannot be."""
    if "A" not in picture.getbands():
        return None
    return picture.getchannel("A").point([255, *[0] * 255])


def _packed(mask: Image.Image) -> str:
    buffer = io.BytesIO()
    mask.save(buffer, "PNG", compress_level=1)
    return to_base64(buffer.getvalue())
