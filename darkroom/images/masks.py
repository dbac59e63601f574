"""Prepares img2img: resizing, masks, the region to repaint, and what lies under the mask.

Knows pixels and geometry. Latents are somebody else's: only the mask is brought to their size here.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from darkroom.images.codecs import to_pixels
from darkroom.images.upscale import Enlarge, enlarge_to

LatentMask = NDArray[np.float32]
"""`[H/8, W/8]` in 0..1, 1 where the picture is repainted."""

STRETCH, CROP, FILL, LATENT_STRETCH = 0, 1, 2, 3
"""Resize modes. A1111: every other number acts like FILL, and so does 3 on whatever is not left to the latent space."""

_FILL_PASSES = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Blur radius in pixels and number of layers, from the coarsest to the sharpest."""


class Box(NamedTuple):
    """A region of a picture; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns of the region."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows of the region."""
        return self.bottom - self.top


def resize(picture: Image.Image, mode: int, width: int, height: int, enlarge: Enlarge | None = None) -> Image.Image:
    """Bring a picture to a size: stretched (0), cropped (1), or fitted with stretched borders (2 and others).

    `enlarge` is the upscaler for a picture that grows; without one, and for a mask, it is Lanczos.
    """
    if mode == STRETCH:
        return _stretched(picture, width, height, enlarge)
    ratio, source = width / height, picture.width / picture.height
    wider = ratio > source if mode == CROP else ratio < source
    taller = ratio <= source if mode == CROP else ratio >= source
    w = width if wider else picture.width * height // picture.height
    h = height if taller else picture.height * width // picture.width
    inner = _stretched(picture, max(w, 1), max(h, 1), enlarge)
    canvas = Image.new("RGB", (width, height))
    left, top = width // 2 - inner.width // 2, height // 2 - inner.height // 2
    canvas.paste(inner, (left, top))
    if mode != CROP:
        _stretch_borders(canvas, inner, left, top)
    return canvas


def _stretched(picture: Image.Image, width: int, height: int, enlarge: Enlarge | None) -> Image.Image:
    if enlarge is None or picture.mode == "L":
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    return Image.fromarray(enlarge_to(to_pixels(picture), (width, height), enlarge))


def _stretch_borders(canvas: Image.Image, inner: Image.Image, left: int, top: int) -> None:
    """Fill the strips beside `inner` with its outermost pixels. A1111: an odd last line may stay black."""
    width, height = canvas.size
    if top > 0:
        canvas.paste(inner.resize((width, top), box=(0, 0, inner.width, 0)), (0, 0))
        last = (0, inner.height, inner.width, inner.height)
        canvas.paste(inner.resize((width, top), box=last), (0, top + inner.height))
    elif left > 0:
        canvas.paste(inner.resize((left, height), box=(0, 0, 0, inner.height)), (0, 0))
        last = (inner.width, 0, inner.width, inner.height)
        canvas.paste(inner.resize((left, height), box=last), (left + inner.width, 0))


def binary(mask: Image.Image, *, rounded: bool = True) -> Image.Image:
    """The mask as grey levels: its alpha channel where that is not all opaque, thresholded above 128; else its grey."""
    if mask.mode == "RGBA" and mask.getchannel("A").getextrema() != (255, 255):
        alpha = mask.getchannel("A")
        return alpha.point(lambda level: 255 if level > 128 else 0) if rounded else alpha
    return mask.convert("L")


def invert(mask: Image.Image) -> Image.Image:
    """255 minus every grey level."""
    return ImageOps.invert(mask)


def blur(mask: Image.Image, sigma_x: int, sigma_y: int) -> Image.Image:
    """Gaussian blur, first along rows, then along columns; 0 leaves an axis alone."""
    levels = np.asarray(mask, dtype=np.uint8)
    for axis, sigma in ((1, sigma_x), (0, sigma_y)):
        if sigma > 0:
            levels = _blur_axis(levels, sigma, axis)
    return Image.fromarray(levels)


def _kernel(sigma: int) -> NDArray[np.int32]:
    """A Gaussian of `2 * int(2.5 sigma + 0.5) + 1` weights that sum up to 256.

    A1111: the weights are those of OpenCV's 8-bit blur: eight fractional bits, each one's rounding error carried to its
    neighbour nearer the centre, and the centre takes what is left.
    """
    radius = int(2.5 * sigma + 0.5)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights *= 256 / weights.sum()
    fixed = np.zeros(2 * radius + 1, dtype=np.int32)
    error = 0.0
    for i in range(radius):
        wanted = weights[i] + error
        fixed[i] = fixed[-1 - i] = round(wanted)
        error = wanted - fixed[i]
    fixed[radius] = 256 - fixed.sum()
    return fixed


def _blur_axis(levels: NDArray[np.uint8], sigma: int, axis: int) -> NDArray[np.uint8]:
    kernel = _kernel(sigma)
    radius = len(kernel) // 2
    padding = [(0, 0), (0, 0)]
    padding[axis] = (radius, radius)
    padded = np.pad(levels, padding, mode="reflect").astype(np.uint16)
    size = levels.shape[axis]
    total = np.full(levels.shape, 128, dtype=np.uint16)  # 256 * 255 + 128 is the most that it comes to
    for shift, weight in enumerate(kernel):
        if weight:
            window = slice(shift, shift + size)
            total += np.uint16(weight) * (padded[:, window] if axis else padded[window])
    return (total >> 8).astype(np.uint8)


def expand_box(box: Box, size: tuple[int, int], width: int, height: int) -> Box:
    """Grow a box inside a picture of `size` (width, height) towards the aspect ratio of `width` x `height`."""
    ratio = width / height
    if box.width / box.height > ratio:
        top, bottom = _grow(box.top, box.bottom, box.width / ratio, size[1])
        return Box(box.left, top, box.right, bottom)
    left, right = _grow(box.left, box.right, box.height * ratio, size[0])
    return Box(left, box.top, right, box.bottom)


def _grow(low: int, high: int, wanted: float, limit: int) -> tuple[int, int]:
    """Grow an interval evenly to `wanted`, shifted and then cut so that it stays in 0..limit."""
    extra = int(wanted - (high - low))
    low -= extra // 2
    high += extra - extra // 2
    if high >= limit:
        low -= high - limit
        high = limit
    if low < 0:
        high -= low
        low = 0
    return low, min(high, limit)


def region(mask: Image.Image, padding: int, width: int, height: int) -> Box | None:
    """The box around everything that is not black, padded and grown to an aspect ratio; None for a black mask."""
    found = mask.getbbox()
    if found is None:
        return None
    padded = Box(
        max(found[0] - padding, 0),
        max(found[1] - padding, 0),
        min(found[2] + padding, mask.width),
        min(found[3] + padding, mask.height),
    )
    return expand_box(padded, mask.size, width, height)


def fill_under(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with its surroundings smeared into the masked part."""
    if mask.size != picture.size:
        mask = mask.resize(picture.size)
    clear = Image.new("RGBa", picture.size)
    clear.paste(picture.convert("RGBA").convert("RGBa"), mask=invert(mask.convert("L")))
    canvas = Image.new("RGBA", picture.size)
    for radius, layers in _FILL_PASSES:
        layer = clear.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(layers):
            canvas.alpha_composite(layer)
    return canvas.convert("RGB")


def latent_mask(mask: Image.Image, latent_size: tuple[int, int], *, rounded: bool) -> LatentMask:
    """The mask at `latent_size` (height, width), `[H/8, W/8]` in 0..1, 1 where the picture is repainted."""
    height, width = latent_size
    small = mask.convert("RGB").resize((width, height)).getchannel("R")
    levels = np.asarray(small, dtype=np.float32) / np.float32(255)
    return np.round(levels) if rounded else levels
