"""Finishes a picture after the engine: its colours, the untouched pixels put back over it, and what shows the mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from darkroom.images.codecs import Pixels, to_pixels
from darkroom.images.colours import match_colours
from darkroom.images.masks import CROP, FILL, Box, invert, resize

_CELL = 8
"""Pixels per level of a picture's cover, at the middle of which it is read."""
_COVER_BLUR = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finished:
    """A picture with what was asked for beside it.

    `uncorrected` is the same with its own colours, None where they were not changed; `mask` is what was repainted, in
    grey; `composite` `[H, W, 4]` is what was made, transparent where it was not.
    """

    picture: Pixels
    uncorrected: Pixels | None = None
    mask: Pixels | None = None
    composite: Pixels | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finishing:
    """What happens to a picture between the engine and the encoder.

    Tuples have one entry per start picture, dealt out to the images of a batch. `overlays` hold RGBA pixels `[H, W, 4]`
    that go on top; `targets` have the colours that are wanted. `mask` is what the overlays leave open, in grey levels
    `[H, W]`. `paste_to` is where in the overlay the picture belongs, None where it is the whole.

    A picture of four channels brings its own mask along, in which case `sources` hold the pictures for the overlay.
    The last two say whether those by-products are wanted.
    """

    overlays: tuple[Pixels, ...] = ()
    targets: tuple[Pixels, ...] = ()
    mask: NDArray[np.uint8] | None = None
    paste_to: Box | None = None
    sources: tuple[Pixels, ...] = ()
    composite: bool = False
    uncorrected: bool = False

    def apply(self, picture: Pixels, index: int) -> Finished:
        """The finished picture number `index` of its job."""
        mask = None if self.mask is None else Image.fromarray(self.mask)
        overlay = Image.fromarray(_dealt(self.overlays, index)) if self.overlays else None
        if picture.shape[2] == 4 and self.sources:
            source = Image.fromarray(_dealt(self.sources, index))
            mask = cover_mask(picture, source.size, self.paste_to)
            overlay = Image.fromarray(make_overlay(source, mask, FILL))
        drawn = picture[..., :3]
        corrected = match_colours(drawn, _dealt(self.targets, index)) if self.targets else drawn
        return Finished(
            picture=self._covered(corrected, overlay),
            uncorrected=self._covered(drawn, overlay) if self.targets and self.uncorrected else None,
            mask=to_pixels(mask) if mask else None,
            composite=_composite(self._laid_out(corrected, overlay), mask) if mask and self.composite else None,
        )

    def _laid_out(self, drawn: Pixels, overlay: Image.Image | None) -> Image.Image:
        """The picture as large as what goes over it."""
        picture = Image.fromarray(drawn)
        return _placed(picture, overlay.size, self.paste_to) if overlay and self.paste_to else picture

    def _covered(self, drawn: Pixels, overlay: Image.Image | None) -> Pixels:
        if overlay is None:
            return drawn
        base = self._laid_out(drawn, overlay).convert("RGBA")
        base.alpha_composite(overlay.crop((0, 0, *base.size)))
        return to_pixels(base)


def _dealt(pictures: tuple[Pixels, ...], index: int) -> Pixels:
    return pictures[index % len(pictures)]


def make_overlay(picture: Image.Image, mask: Image.Image, mode: int) -> Pixels:
    """The picture, transparent where `mask` (as large as wanted, grey levels) is white."""
    if mask.size != picture.size:
        mask = resize(mask, mode, *picture.size).convert("L")
    overlay = Image.new("RGBa", picture.size)
    overlay.paste(picture.convert("RGBA").convert("RGBa"), mask=invert(mask))
    return np.asarray(overlay.convert("RGBA"), dtype=np.uint8)


def cover_mask(picture: Pixels, size: tuple[int, int], paste_to: Box | None) -> Image.Image:
    """The mask in a picture's fourth channel, a level per cell, smoothed; as large as what it is laid over."""
    height, width = picture.shape[:2]
    levels = np.ascontiguousarray(picture[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL, 3])
    mask = resize(Image.fromarray(levels), FILL, width, height).convert("L")
    mask = mask.filter(ImageFilter.GaussianBlur(_COVER_BLUR))
    return mask if paste_to is None else _placed(mask, size, paste_to).convert("L")


def widen(mask: Image.Image) -> Image.Image:
    """Every grey level doubled, at most 255: all that the blurred mask touches by half is repainted in full."""
    return ImageChops.add(mask, mask)


def _placed(picture: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """A transparent picture of this size with another one in the box."""
    base = Image.new("RGBA", size)
    base.paste(resize(picture, CROP, box.width, box.height), (box.left, box.top))
    return base


def _composite(made: Image.Image, mask: Image.Image) -> Pixels:
    """What was made, as opaque as the mask is bright."""
    levels = resize(mask, FILL, *made.size).convert("L")
    clear = Image.new("RGBa", made.size)
    shown = Image.composite(made.convert("RGBA").convert("RGBa"), clear, levels).convert("RGBA")
    return np.asarray(shown, dtype=np.uint8)
