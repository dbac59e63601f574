"""Enlarges pictures: by resampling here, or by a network that comes in as a function.

Knows pixels and sizes; knows no network and no list of those that are installed.
"""

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType

from PIL import Image

from darkroom.images.codecs import Pixels, to_pixels

Enlarge = Callable[[Image.Image, float], Image.Image]
"""Makes a picture larger once, given the factor that is wanted; a network has its own and ignores it."""

Enlarging = Generator[Image.Image, Image.Image, Image.Image]
"""Yields the picture that an upscaler shall make larger once, is sent what it made, and gives the result."""

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
    """The picture at exactly `size` (width, height) >= 1, stretched if need be; without an upscaler by Lanczos."""
    image = Image.fromarray(picture)
    if enlarge is None:
        return to_pixels(_stretched(image, size))
    scale = _scale(image, size)
    return to_pixels(_driven(enlarging_to(image, size), lambda shown: enlarge(shown, scale)))


def enlarge_by(image: Image.Image, scale: float, enlarge: Enlarge) -> Image.Image:
    """The picture `scale` times as large, its sides rounded down to multiples of 8, which must leave some pixels."""
    return _driven(enlarging_by(image, scale), lambda shown: enlarge(shown, scale))


def enlarging_to(image: Image.Image, size: tuple[int, int]) -> Enlarging:
    """The picture at exactly `size` (width, height) >= 1.

    A1111: an upscaler is asked only where at least one side grows.
    """
    scale = _scale(image, size)
    if scale > 1:
        image = yield from enlarging_by(image, scale)
    return _stretched(image, size)


def enlarging_by(image: Image.Image, scale: float) -> Enlarging:
    """The picture `scale` times as large, its sides rounded down to multiples of 8, which must leave some pixels.

    A1111: an upscaler that does not come that far runs again, and what it makes too much is taken away by Lanczos.
    """
    width, height = (int(side * scale // 8 * 8) for side in image.size)
    for attempt in range(_ATTEMPTS):
        if image.width >= width and image.height >= height and (attempt > 0 or scale != 1):
            break
        before = image.size
        image = yield image
        if image.size == before:
            break
    return _stretched(image, (width, height))


def _driven(steps: Enlarging, enlarge: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        shown = next(steps)
        while True:
            shown = steps.send(enlarge(shown))
    except StopIteration as end:
        result: Image.Image = end.value
        return result


def _scale(image: Image.Image, size: tuple[int, int]) -> float:
    return max(size[0] / image.width, size[1] / image.height)


def _stretched(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
