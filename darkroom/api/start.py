"""From an img2img request's pictures and mask to what a job starts from, and what is pasted back afterwards.

Works in picture space throughout; knows nothing of networks, and of requests only their fields.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from darkroom.api.answers import InitImageError
from darkroom.api.models import Img2Img
from darkroom.api.soft_inpainting import soft_inpainting
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images import files, masks
from darkroom.images.codecs import decode_base64, encode_image, flatten, to_pixels
from darkroom.images.overlay import Finishing, make_overlay, widen
from darkroom.images.upscale import Enlarge
from darkroom.jobs.spec import InitImage, SoftInpainting
from darkroom.options.values import OptionValues
from darkroom.settings import Settings

MAX_BLUR = 128
MIN_SIDE = 8

Fill = Literal["fill", "original", "latent noise", "latent nothing"]
_FILLS: tuple[Fill, ...] = ("fill", "original", "latent noise", "latent nothing")

Grey = NDArray[np.uint8]
"""Grey levels `[H, W]`."""

BLANK_MASK = 'Unable to perform "Inpaint Only mask" because mask is blank, switch to img2img mode.'


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What an img2img job starts from. `extra` goes into the generation text, with its values as JSON has them.

    `warnings` say what was asked for and turned out to be impossible.
    """

    init: InitImage
    batch_size: int
    finishing: Finishing = field(default_factory=Finishing)
    extra: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """A mask ready for use: at the job's size, with its overlay's grey levels and the region it works on.

    `latent` is what the sampler repaints, as large as any picture.
    """

    picture: Image.Image
    overlay: Image.Image
    box: masks.Box | None
    latent: Image.Image
    rounded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a request's start depends on. `size` is (width, height)."""

    wire: Img2Img
    options: OptionValues
    settings: Settings
    size: tuple[int, int]
    soft: SoftInpainting | None
    enlarge: Enlarge | None

    @property
    def mode(self) -> int:
        return self.wire.resize_mode or masks.STRETCH

    @property
    def rounded(self) -> bool:
        """Whether a mask has only two levels in the end."""
        return bool(self.wire.mask_round) and self.soft is None

    def fitted(self, picture: Image.Image, mode: int) -> Image.Image:
        """The picture at the job's size."""
        return masks.resize(picture, mode, *self.size, self.enlarge)


def make_start(
    wire: Img2Img,
    options: OptionValues,
    size: tuple[int, int],
    batch_size: int,
    settings: Settings,
    enlarge: Enlarge | None = None,
) -> Start:
    """Decode and prepare everything. `size` is (width, height); `enlarge` is the upscaler of pictures that grow.

    Raises BadImage, BadRequest, InitImageError; OSError where a picture is to be kept and cannot be.
    """
    sources = _decode_sources(wire, batch_size, settings.max_image_pixels)
    soft, extra = soft_inpainting(wire)
    plan = _Plan(wire=wire, options=options, settings=settings, size=size, soft=soft, enlarge=enlarge)
    extra["Denoising strength"] = wire.denoising_strength
    mask = _prepare_mask(plan, extra) if wire.mask is not None else None
    whole = [_fit_whole(plan, flatten(source, options.img2img_background_color), mask) for source in sources]
    pictures = [_under_mask(plan, picture, mask) for picture in whole]
    if mask and wire.inpainting_fill in {0, 2, 3}:
        extra["Masked content"] = _fill(wire)
    return Start(
        init=InitImage(
            pictures=tuple(map(to_pixels, pictures)),
            denoising_strength=wire.denoising_strength,
            latent_mask=_latent_mask(mask, size),
            fill=_fill(wire) if mask else "original",
            noise_multiplier=_noise_multiplier(wire, options),
            extra_noise=options.img2img_extra_noise,
            fix_steps=options.img2img_fix_steps,
            mask=_levels(mask) if mask else None,
            soft=soft if mask else None,
            digest=_keep_sources(sources, settings.data_dir / options.outdir_init_images)
            if options.save_init_img
            else None,
        ),
        batch_size=len(pictures) if len(pictures) > 1 else batch_size,
        finishing=_finishing(plan, whole, pictures, mask),
        extra=extra,
        warnings=(BLANK_MASK,) if wire.mask is not None and mask is None else (),
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


def _keep_sources(sources: list[Image.Image], folder: Path) -> str:
    """Save the pictures as they came, each under the MD5 of its pixels; the last one's is what the text tells."""
    digest = ""
    for source in sources:
        digest = hashlib.md5(source.tobytes(), usedforsecurity=False).hexdigest()
        files.keep(encode_image(source, "png", notes={}), folder, f"{digest}.png")
    return digest


def _prepare_mask(plan: _Plan, extra: dict[str, object]) -> _Mask | None:
    """The mask; None where it is blank and only its region was wanted, which makes the request a plain img2img."""
    wire, limit = plan.wire, plan.settings.max_image_pixels
    picture = masks.binary(decode_base64(wire.mask, field="mask", max_pixels=limit), rounded=plan.rounded)
    if wire.inpainting_mask_invert:
        picture = masks.invert(picture)
        extra["Mask mode"] = "Inpaint not masked"
    blur_x, blur_y = _blurs(wire)
    picture = masks.blur(picture, blur_x, blur_y)
    if blur_x == blur_y > 0:
        extra["Mask blur"] = blur_x
    box = None
    if wire.inpaint_full_res:
        padding = wire.inpaint_full_res_padding or 0
        box = masks.region(picture, padding, *plan.size)
        if box is None:
            return None
        extra["Inpaint area"] = "Only masked"
        extra["Masked area padding"] = padding
    part, mode = (picture.crop(box), masks.FILL) if box else (picture, plan.mode)
    fitted = masks.resize(part, mode, *plan.size).convert("L")
    return _Mask(
        picture=fitted,
        overlay=picture if box else widen(fitted),
        box=box,
        latent=_separate_mask(wire, limit) or fitted,
        rounded=plan.rounded,
    )


def _separate_mask(wire: Img2Img, max_pixels: int) -> Image.Image | None:
    """The mask that a request has for the sampler alone. A1111: takes none over HTTP, only from its own scripts."""
    if not wire.latent_mask:
        return None
    return decode_base64(wire.latent_mask, field="latent_mask", max_pixels=max_pixels).convert("L")


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


def _fit_whole(plan: _Plan, picture: Image.Image, mask: _Mask | None) -> Image.Image:
    """The picture at the job's size, unless a region of it is worked on or its latent is to be stretched."""
    if mask and mask.box:
        return picture
    if plan.mode != masks.LATENT_STRETCH:
        return plan.fitted(picture, plan.mode)
    # It will be encoded as it is, so it must fit like a picture that is drawn.
    limit = plan.settings.max_pixels
    if min(picture.size) < MIN_SIDE or picture.width * picture.height > limit:
        allowed = f"sides from {MIN_SIDE} and at most {limit} pixels where resize_mode is 3"
        raise LimitExceeded("init_images", f"{picture.width}x{picture.height}", allowed)
    return picture


def _under_mask(plan: _Plan, picture: Image.Image, mask: _Mask | None) -> Image.Image:
    """The picture as it is encoded: the region alone, and smeared under the mask where that was asked for."""
    if mask is None:
        return picture
    if mask.box:
        picture = plan.fitted(picture.crop(mask.box), masks.FILL)
    return masks.fill_under(picture, mask.latent) if plan.wire.inpainting_fill != 1 else picture


def _fill(wire: Img2Img) -> Fill:
    # A1111: a number without a meaning smears, as 0 does.
    number = wire.inpainting_fill or 0
    return _FILLS[number] if number in range(4) else "fill"


def _latent_mask(mask: _Mask | None, size: tuple[int, int]) -> masks.LatentMask | None:
    if mask is None:
        return None
    return masks.latent_mask(mask.latent, (size[1] // 8, size[0] // 8), rounded=mask.rounded)


def _levels(mask: _Mask) -> Grey:
    """The mask as checkpoints see that look at it."""
    levels = np.asarray(mask.picture, dtype=np.uint8)
    return np.where(levels > 127, np.uint8(255), np.uint8(0)) if mask.rounded else levels


def _noise_multiplier(wire: Img2Img, options: OptionValues) -> float:
    given = wire.initial_noise_multiplier
    return options.initial_noise_multiplier if given is None else given


def _finishing(plan: _Plan, whole: list[Image.Image], pictures: list[Image.Image], mask: _Mask | None) -> Finishing:
    options = plan.options
    # A1111: the target is the picture as it is encoded, the smear under the mask included.
    targets = tuple(map(to_pixels, pictures)) if options.img2img_color_correction else ()
    kept = options.save_images_before_color_correction
    if mask is None:
        return Finishing(targets=targets, uncorrected=kept)
    overlays = [make_overlay(picture, mask.overlay, plan.mode) for picture in whole] if options.overlay_inpaint else []
    return Finishing(
        overlays=tuple(overlays),
        targets=targets,
        mask=np.asarray(mask.overlay, dtype=np.uint8),
        paste_to=mask.box,
        sources=tuple(map(to_pixels, whole)) if plan.soft else (),
        composite=options.return_mask_composite or options.save_mask_composite,
        uncorrected=kept,
    )
