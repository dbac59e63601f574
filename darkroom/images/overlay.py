"""Puts the untouched pixels back over a finished picture, so that nothing outside the mask changes."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from darkroom.images.codecs import Pixels, to_pixels
from darkroom.images.masks import CROP, Box, invert, resize


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finishing:
    """What happens to a picture between the engine and the encoder.

    `overlays` hold RGBA pixels `[H, W, 4]` that go on top, one per start picture, dealt out to the images of a batch;
    `paste_to` is where in the overlay the picture belongs, None where it is the whole.
    """

    overlays: tuple[Pixels, ...] = ()
    paste_to: Box | None = None

    def apply(self, picture: Pixels, index: int) -> Pixels:
        """The finished picture number `index` of its job."""
        if not self.overlays:
            return picture
        overlay = Image.fromarray(self.overlays[index % len(self.overlays)])
        return to_pixels(_compose(Image.fromarray(picture), overlay, self.paste_to))


def make_overlay(picture: Image.Image, mask: Image.Image, mode: int) -> Pixels:
    """The picture, transparent where `mask` (as large as wanted, grey levels) is white."""
    if mask.size != picture.size:
        mask = resize(mask, mode, *picture.size).convert("L")
    overlay = Image.new("RGBa", picture.size)
    overlay.paste(picture.convert("RGBA").convert("RGBa"), mask=invert(mask))
    return np.asarray(overlay.convert("RGBA"), dtype=np.uint8)


def widen(mask: Image.Image) -> Image.Image:
    """Every grey level doubled, at most 255: all that the blurred mask touches by half is repainted in full."""
    return ImageChops.add(mask, mask)


def _compose(picture: Image.Image, overlay: Image.Image, paste_to: Box | None) -> Image.Image:
    if paste_to is None:
        base = picture.convert("RGBA")
        overlay = overlay.crop((0, 0, *base.size))
    else:
        base = Image.new("RGBA", overlay.size)
        base.paste(resize(picture, CROP, paste_to.width, paste_to.height), (paste_to.left, paste_to.top))
    base.alpha_composite(overlay)
    return base.convert("RGB")
