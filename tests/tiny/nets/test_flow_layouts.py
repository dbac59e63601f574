"""The full-size networks of Stable Diffusion 3, 3.5 and FLUX.1, without weights: names, shapes, and what comes out."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.nets.architecture import identify, is_guided, text_width
from darkroom.nets.checkpoint import UNET, Checkpoint
from darkroom.nets.config import read_config
from darkroom.nets.flux_layout import flux_sizes
from darkroom.nets.libraries import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    T5Config,
    T5EncoderModel,
)
from darkroom.nets.network import Network
from darkroom.nets.sd3_layout import sd3_sizes
from darkroom.nets.store import ASSEMBLERS
from tests.tiny.flow_checkpoints import Tiny, denoiser_in_file, whole

META = torch.device("meta")
SD3: Mapping[str, Any] = {"in_channels": 16, "out_channels": 16, "joint_attention_dim": 4096}
MODELS: Mapping[str, Callable[[], SD3Transformer2DModel | FluxTransformer2DModel]] = {
    "sd3 medium": lambda: SD3Transformer2DModel(
        **SD3, num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    ),
    "sd3.5 medium": lambda: SD3Transformer2DModel(
        **SD3,
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(13)),
        qk_norm="rms_norm",
    ),
    "sd3.5 large": lambda: SD3Transformer2DModel(
        **SD3,
        num_layers=38,
        num_attention_heads=38,
        caption_projection_dim=2432,
        pos_embed_max_size=192,
        qk_norm="rms_norm",
    ),
    "flux dev": lambda: FluxTransformer2DModel(guidance_embeds=True),
    "flux schnell": FluxTransformer2DModel,
}
TENSORS = {"flux dev": 780, "flux schnell": 776}
"""As many as the published files have."""


class Bare:
    """Tensors that have names and shapes alone."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.kinds = dict.fromkeys(tensors, "F16")

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name]

    def get_slice(self, name: str) -> Tensor:
        return self._tensors[name]

    def close(self) -> None:
        pass


def in_file(name: str) -> tuple[dict[str, Tensor], SD3Transformer2DModel | FluxTransformer2DModel]:
    with META:
        model = MODELS[name]()
    return denoiser_in_file(model), model


def full_size(name: str) -> Tiny:
    """All networks at their published sizes."""
    with META:
        return Tiny(
            transformer=MODELS[name](),
            vae=AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                latent_channels=16,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            clip_l=clip(768, 3072, 12, 12),
            clip_g=None if name.startswith("flux") else clip(1280, 5120, 32, 20),
            t5=T5EncoderModel(
                T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
            ),
        )


def clip(width: int, inner: int, layers: int, heads: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
    )
    return CLIPTextModelWithProjection(config)


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_read_off_the_tensors(name: str) -> None:
    tensors, model = in_file(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    sizes = flux_sizes(shapes) if name.startswith("flux") else sd3_sizes(shapes)
    expected = {key: model.config[key] for key in sizes}
    assert sizes == expected | {"out_channels": model.config.out_channels or model.config.in_channels}
    assert len(tensors) == TENSORS.get(name, len(tensors))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prefix", ["", UNET])
def test_checkpoints_are_known_by_their_tensors_with_and_without_a_prefix(name: str, prefix: str) -> None:
    shapes = {prefix + key: tuple(tensor.shape) for key, tensor in in_file(name)[0].items()}
    assert identify(shapes) == ("flux" if name.startswith("flux") else "sd3")
    assert is_guided(shapes) == (name == "flux dev")
    assert text_width(shapes) is None


@pytest.mark.parametrize("name", MODELS)
def test_diffusers_finds_the_same_tensors_in_the_same_places(name: str) -> None:
    tensors, model = in_file(name)
    kind = "flux" if name.startswith("flux") else "sd3"
    # Not at the top: it wants torchvision to be in order first.
    converters = import_module("diffusers.loaders.single_file_utils")
    found = getattr(converters, f"convert_{kind}_transformer_checkpoint_to_diffusers")(dict(tensors))
    wanted = model.state_dict()
    assert {key: tensor.shape for key, tensor in found.items()} == {key: value.shape for key, value in wanted.items()}


@pytest.mark.parametrize("name", MODELS)
def test_full_size_checkpoints_leave_no_tensor_over_and_give_latents_of_their_shape(name: str) -> None:
    kind = "flux" if name.startswith("flux") else "sd3"
    checkpoint = Checkpoint(Path("full.safetensors"), Bare(whole(full_size(name))))
    network: Network = ASSEMBLERS[kind](checkpoint, read_config(None, kind), META, torch.bfloat16, [])
    # FLUX.1's vector ends in a number.
    vector = torch.zeros(2, 769 if kind == "flux" else 2048, device=META)
    context = torch.zeros(2, 512 if kind == "flux" else 154, 4096, device=META)
    latents = torch.zeros(2, 16, 128, 96, device=META)
    assert network.denoise(latents, torch.zeros(2, device=META), context, vector).shape == latents.shape
