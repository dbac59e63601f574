"""Small networks of the architectures that users' upscalers and face restorers have, with random weights."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from darkroom.nets.upscalers import network  # noqa: F401  first: it lets spandrel be imported

# isort: split
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DAT import DAT
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.HAT import HAT
from spandrel.architectures.RestoreFormer import RestoreFormer
from spandrel.architectures.SCUNet import SCUNet
from spandrel.architectures.SwinIR import SwinIR

_SMALL: Mapping[str, Any] = MappingProxyType(
    {"embed_dim": 12, "upscale": 2, "img_size": 16, "upsampler": "pixelshuffle"}
)

UPSCALERS: Mapping[str, tuple[int, Callable[[], nn.Module]]] = MappingProxyType(
    {
        "ESRGAN": (4, partial(ESRGAN, num_filters=8, num_blocks=1, scale=4)),
        "Compact": (2, partial(Compact, num_feat=8, num_conv=2, upscale=2)),
        "SwinIR": (2, partial(SwinIR, depths=[2], num_heads=[2], window_size=8, mlp_ratio=2, **_SMALL)),
        "DAT": (
            2,
            partial(
                DAT, **{**_SMALL, "embed_dim": 32}, split_size=[4, 8], depth=[2], num_heads=[2], expansion_factor=2
            ),
        ),
        "HAT": (
            2,
            partial(
                HAT,
                **_SMALL,
                depths=(2,),
                num_heads=(2,),
                window_size=8,
                mlp_ratio=2,
                compress_ratio=4,
                squeeze_factor=4,
                num_feat=64,
            ),
        ),
        "SCUNet": (1, partial(SCUNet, config=[1, 1, 1, 1, 1, 1, 1], dim=64)),
    }
)
"""Factor and network, by the architecture's name."""


def weights_of(build: Callable[[], nn.Module], seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights of a network that was built with a seed of its own."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how the architectures are written
        torch.manual_seed(seed)
        return {name: tensor.contiguous() for name, tensor in build().state_dict().items()}


def small_restorer() -> nn.Module:
    """A RestoreFormer for faces of 512x512."""
    restorer: nn.Module = RestoreFormer(
        n_embed=16, embed_dim=32, ch=32, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1, z_channels=32
    )
    return restorer
