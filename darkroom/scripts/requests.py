"""Making requests out of a request: other fields, drawn seeds, another picture to start from."""

import secrets
from typing import Any, TypeVar

from PIL import Image

from darkroom.api.models import Generation, Img2Img
from darkroom.images.codecs import Pixels, decode_base64, encode, encode_image, flatten, to_base64

R = TypeVar("R", bound=Generation)

_LAST_RANDOM_SEED = 4_294_967_293


def changed(request: R, **fields: Any) -> R:
    """The request with other values in some fields, as if the client had sent them."""
    return request.model_copy(update=fields)


def with_options(request: R, **options: object) -> R:
    """The request with more options of its own."""
    return changed(request, override_settings={**(request.override_settings or {}), **options})


def drawn(seed: object) -> int:
    """A seed: the one given, or a random one for nothing and for -1."""
    return secrets.randbelow(_LAST_RANDOM_SEED + 1) if seed in {None, "", -1, "-1"} else int(str(seed))


def with_seeds(request: R) -> R:
    """The request with seed and variation seed drawn."""
    return changed(request, seed=drawn(request.seed), subseed=drawn(request.subseed))


def first_picture(request: Img2Img, max_pixels: int, background: str) -> Image.Image:
    """The picture that a request starts from, RGB, what is transparent laid over `background`. Raises BadImage."""
    sources = request.init_images or [None]
    return flatten(decode_base64(sources[0], field="init_images[0]", max_pixels=max_pixels), background)


def base64_of(picture: Pixels | Image.Image) -> str:
    """A picture as a request carries it, without loss."""
    data = encode_image(picture, "png", notes={}) if isinstance(picture, Image.Image) else encode(picture, "png")
    return to_base64(data)
