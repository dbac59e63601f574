"""From an img2img request's pictures and mask to what a job starts from, and what is pasted back afterwards.

Works in picture space throughout; knows nothing of networks, and of requests only their fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from darkroom.api.answers import InitImageError
from darkroom.api.models import Img2Img
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images import masks
from darkroom.images.codecs import Pixels, decode_base64, flatten, to_pixels
from darkroom.images.overlay import Finishing, make_overlay, widen
from darkroom.jobs.spec import InitImage
from darkroom.settings import OptionValues, Settings

MAX_BLUR = 128
MIN_SIDE = 8

Fill = Literal["fill", "original", "latent noise", "latent nothing"]
_FILLS: tuple[Fill, ...] = ("fill", "original", "latent noise", "latent nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What an img2img job starts from. `extra` goes into the generation text, with its values as JSON has them."""

    init: InitImage
    batch_size: int
    finishing: Finishing = field(default_factory=Finishing)
    extra: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """A mask ready for use: at the job's size, with its overlay's grey levels and the region it works on."""

    picture: Image.Image
    overlay: Image.Image
    box: masks.Box | None


def make_start(
    wire: Img2Img, options: OptionValues, size: tuple[int, int], batch_size: int, settings: Settings
) -> Start:
    """Decode and prepare everything. `size` is (width, height). Raises BadImage, BadRequest, InitImageError."""
    sources = _decode_sources(wire, batch_size, settings.max_image_pixels)
    extra: dict[str, object] = {"Denoising strength": wire.denoising_strength}
    mask = _prepare_mask(wire, size, settings.max_image_pixels, extra) if wire.mask is not None else None
    flat = [flatten(source, options.img2img_background_color) for source in sources]
    whole = [_fit_whole(picture, wire, size, mask, settings) for picture in flat]
    overlays = [make_overlay(picture, mask.overlay, _mode(wire)) for picture in whole] if mask else []
    pictures = [_under_mask(picture, wire, size, mask) for picture in whole]
    if mask and wire.inpainting_fill in {0, 2, 3}:
        extra["Masked content"] = _fill(wire)
    return Start(
        init=InitImage(
            pictures=tuple(map(to_pixels, pictures)),
            denoising_strength=wire.denoising_strength,
            latent_mask=_latent_mask(mask, wire, size),
            fill=_fill(wire) if mask else "original",
            noise_multiplier=_noise_multiplier(wire, options),
            extra_noise=options.img2img_extra_noise,
            fix_steps=options.img2img_fix_steps,
        ),
        batch_size=len(pictures) if len(pictures) > 1 else batch_size,
        finishing=_finishing(overlays, mask, options),
        extra=extra,
    )


def _decode_sources(wire: Img2Img, batch_size: int, max_pixels: int) -> list[Image.Image]:
    if wire.init_images is None:
        raise InitImageError("Init image not found")
    count = len(wire.init_images)
    if not 1 <= count <= batch_size:
        raise BadRequest("init_images", f"{count} pictures", f"from 1 to batch_size = {batch_size} pictures")
    sources: list[Image.Image] = []
    for place, text in enumerate(wire.init_images):
        left = max_pixels - sum(source.width * source.height for source in sources)
        sources.append(decode_base64(text, field=f"init_images[{place}]", max_pixels=left))
    return sources


def _mode(wire: Img2Img) -> int:
    return wire.resize_mode or masks.STRETCH


def _prepare_mask(wire: Img2Img, size: tuple[int, int], max_pixels: int, extra: dict[str, object]) -> _Mask | None:
    """The mask; None where it is blank and only its region was wanted, which makes the request a plain img2img."""
    picture = masks.binary(decode_base64(wire.mask, field="mask", max_pixels=max_pixels), rounded=bool(wire.mask_round))
    if wire.inpainting_mask_invert:
        picture = masks.invert(picture)
        extra["Mask mode"] = "Inpaint not masked"
    blur_x, blur_y = _blurs(wire)
    picture = masks.blur(picture, blur_x, blur_y)
    if blur_x == blur_y > 0:
        extra["Mask blur"] = blur_x
    if not wire.inpaint_full_res:
        fitted = masks.resize(picture, _mode(wire), *size).convert("L")
        return _Mask(picture=fitted, overlay=widen(fitted), box=None)
    padding = wire.inpaint_full_res_padding or 0
    box = masks.region(picture, padding, *size)
    if box is None:
        return None
    extra["Inpaint area"] = "Only masked"
    extra["Masked area padding"] = padding
    fitted = masks.resize(picture.crop(box), masks.FILL, *size).convert("L")
    return _Mask(picture=fitted, overlay=picture, box=box)


def _blurs(wire: Img2Img) -> tuple[int, int]:
    if wire.mask_blur is not None:
        blurs = {"mask_blur": wire.mask_blur}
        pair = (wire.mask_blur, wire.mask_blur)
    else:
        pair = (wire.mask_blur_x or 0, wire.mask_blur_y or 0)
        blurs = {"mask_blur_x": pair[0], "mask_blur_y": pair[1]}
    for name, value in blurs.items():
        if not 0 <= value <= MAX_BLUR:
            raise BadRequest(name, value, f"from 0 to {MAX_BLUR} pixels")
    return pair


def _fit_whole(
    picture: Image.Image, wire: Img2Img, size: tuple[int, int], mask: _Mask | None, settings: Settings
) -> Image.Image:
    """The picture at the job's size, unless a region of it is worked on or its latent is to be stretched."""
    if mask and mask.box:
        return picture
    if _mode(wire) != masks.LATENT_STRETCH:
        return masks.resize(picture, _mode(wire), *size)
    # It will be encoded as it is, so it must fit like a picture that is drawn.
    if min(picture.size) < MIN_SIDE or picture.width * picture.height > settings.max_pixels:
        allowed = f"sides from {MIN_SIDE} and at most {settings.max_pixels} pixels where resize_mode is 3"
        raise LimitExceeded("init_images", f"{picture.width}x{picture.height}", allowed)
    return picture


def _under_mask(picture: Image.Image, wire: Img2Img, size: tuple[int, int], mask: _Mask | None) -> Image.Image:
    """The picture as it is encoded: the region alone, and smeared under the mask where that was asked for."""
    if mask is None:
        return picture
    if mask.box:
        picture = masks.resize(picture.crop(mask.box), masks.FILL, *size)
    return masks.fill_under(picture, mask.picture) if wire.inpainting_fill != 1 else picture


def _fill(wire: Img2Img) -> Fill:
    # A1111: a number without a meaning smears, as 0 does.
    number = wire.inpainting_fill or 0
    return _FILLS[number] if number in range(4) else "fill"


def _latent_mask(mask: _Mask | None, wire: Img2Img, size: tuple[int, int]) -> masks.LatentMask | None:
    if mask is None:
        return None
    return masks.latent_mask(mask.picture, (size[1] // 8, size[0] // 8), rounded=bool(wire.mask_round))


def _noise_multiplier(wire: Img2Img, options: OptionValues) -> float:
    given = wire.initial_noise_multiplier
    return options.initial_noise_multiplier if given is None else given


def _finishing(overlays: Sequence[Pixels], mask: _Mask | None, options: OptionValues) -> Finishing:
    if mask is None or not options.overlay_inpaint:
        return Finishing()
    return Finishing(overlays=tuple(overlays), paste_to=mask.box)
