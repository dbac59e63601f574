"""The ways of stretching a latent between two passes, by the names that clients know. Imports no torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple


class LatentMode(NamedTuple):
    """How a latent is interpolated; its corners are never aligned."""

    interpolation: Literal["bilinear", "bicubic", "nearest", "nearest-exact"]
    antialias: bool = False


LATENT_MODES: Mapping[str, LatentMode] = MappingProxyType(
    {
        "Latent": LatentMode("bilinear"),
        "Latent (antialiased)": LatentMode("bilinear", antialias=True),
        "Latent (bicubic)": LatentMode("bicubic"),
        "Latent (bicubic antialiased)": LatentMode("bicubic", antialias=True),
        "Latent (nearest)": LatentMode("nearest"),
        "Latent (nearest-exact)": LatentMode("nearest-exact"),
    }
)
"""In the order in which clients show them."""

DEFAULT_LATENT_MODE = "Latent"
