"""Enlarges pictures: by resampling here, or by a network that comes in as a function.

Knows pixels and sizes; knows no network and no list of those that are installed.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image

from darkroom.images.codecs import Pixels, to_pixels

Enlarge = Callable[[Image.Image, float], Image.Image]
"""Makes a picture larger once, given the factor that is wanted; a network has its own and ignores it."""

NONE = "None"

_ATTEMPTS = 3
"""How often an upscaler with a small factor is applied over its own result."""


def _resampled(filter_: Image.Resampling) -> Enlarge:
    return lambda picture, scale: picture.resize((int(picture.width * scale), int(picture.height * scale)), filter_)


RESAMPLERS: Mapping[str, Enlarge] = MappingProxyType(
    {"Lanczos": _resampled(Image.Resampling.LANCZOS), "Nearest": _resampled(Image.Resampling.NEAREST)}
)
"""The upscalers that need no network, by name."""

BUILT_IN: tuple[str, ...] = (NONE, *RESAMPLERS)
"""The upscalers that are always there, in the order in which clients show them."""


def enlarge_to(picture: Pixels, size: tuple[int, int], enlarge: Enlarge | None) -> Pixels:
    """The picture at exactly `size` (width, height) >= 1, stretched if need be; without an upscaler by Lanczos.

    A1111: an upscaler is asked only where at least one side grows.
    """
    image = Image.fromarray(picture)
    scale = max(size[0] / image.width, size[1] / image.height)
    if enlarge is not None and scale > 1:
        image = enlarge_by(image, scale, enlarge)
    return to_pixels(_stretched(image, size))


def enlarge_by(image: Image.Image, scale: float, enlarge: Enlarge) -> Image.Image:
    """The picture `scale` times as large, its sides rounded down to multiples of 8, which must leave some pixels.

    A1111: an upscaler that does not come that far runs again, and what it makes too much is taken away by Lanczos.
    """
    width, height = (int(side * scale // 8 * 8) for side in image.size)
    for attempt in range(_ATTEMPTS):
        if image.width >= width and image.height >= height and (attempt > 0 or scale != 1):
            break
        before = image.size
        image = enlarge(image, scale)
        if image.size == before:
            break
    return _stretched(image, (width, height))


def _stretched(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
