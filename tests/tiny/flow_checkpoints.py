"""Writes tiny checkpoints of Stable Diffusion 3 and FLUX.1: diffusers' modules with random weights, in the layout of
single files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from darkroom.nets import layout
from darkroom.nets.flux_layout import flux_source
from darkroom.nets.layout import Source
from darkroom.nets.libraries import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    T5Config,
    T5EncoderModel,
)
from darkroom.nets.sd3_layout import sd3_source
from darkroom.nets.tokenizer import BOS, EOS

UNET = "model.diffusion_model."
WIDTH = 64
SMALL, LARGE = 16, 32
"""Widths of CLIP's two encoders."""

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """The modules of a tiny model; those that it does not use are None."""

    transformer: SD3Transformer2DModel | FluxTransformer2DModel
    vae: AutoencoderKL
    clip_l: CLIPTextModelWithProjection
    t5: T5EncoderModel
    clip_g: CLIPTextModelWithProjection | None = None


def tiny_sd3(seed: int = 0) -> Tiny:
    """Three blocks, of which one has two attentions, as 3.5 medium has them."""
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=64,
        pooled_projection_dim=SMALL + LARGE,
        out_channels=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return Tiny(
        transformer=settled(transformer),
        vae=_vae(),
        clip_l=_clip(SMALL, "quick_gelu"),
        clip_g=_clip(LARGE, "gelu"),
        t5=_t5(),
    )


def tiny_flux(seed: int = 0, *, guided: bool = True) -> Tiny:
    """Two blocks of each kind; `guided` as the one that people call dev."""
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=SMALL,
        guidance_embeds=guided,
        axes_dims_rope=(4, 14, 14),
    )
    return Tiny(transformer=settled(transformer), vae=_vae(), clip_l=_clip(SMALL, "quick_gelu"), t5=_t5())


def settled(module: M) -> M:
    """Ready for use; norms that would not show a mistake are disturbed."""
    for name, weight in module.named_parameters():
        if "norm" in name and weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    return module.requires_grad_(False).eval()


def _vae() -> AutoencoderKL:
    levels = 4
    return settled(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(32,) * levels,
            layers_per_block=1,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    )


def _clip(width: int, activation: str) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=1,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return settled(CLIPTextModelWithProjection(config))


def _t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=32128, d_model=WIDTH, d_kv=16, d_ff=96, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return settled(T5EncoderModel(config))


def in_file(module: nn.Module, source: Source) -> dict[str, Tensor]:
    """A module's weights under the names, and in the pieces, of a single file."""
    found: dict[str, Tensor] = {}
    for name, weight in module.state_dict().items():
        place = source(name)
        if isinstance(place, str):
            found[place] = weight.contiguous()
            continue
        whole = found.setdefault(place.key, torch.empty((place.total, *weight.shape[1:]), device=weight.device))
        given = 0
        for start, stop in place.ranges:
            whole[start:stop] = weight[given : given + stop - start]
            given += stop - start
    return found


def denoiser_in_file(model: SD3Transformer2DModel | FluxTransformer2DModel) -> dict[str, Tensor]:
    """A denoiser's weights as a single file has them, without a prefix."""
    sizes: Mapping[str, Any] = model.config
    return in_file(model, sd3_source(sizes) if isinstance(model, SD3Transformer2DModel) else flux_source(sizes))


def encoders_in_file(tiny: Tiny) -> dict[str, dict[str, Tensor]]:
    """The text encoders' weights by the name that people give their files."""
    t5 = {name: weight for name, weight in tiny.t5.state_dict().items() if name != "encoder.embed_tokens.weight"}
    found = {"clip_l": tiny.clip_l.state_dict(), "t5xxl": t5}
    return found if tiny.clip_g is None else found | {"clip_g": tiny.clip_g.state_dict()}


def vae_in_file(tiny: Tiny) -> dict[str, Tensor]:
    """The autoencoder's weights as its own file has them."""
    return in_file(tiny.vae, layout.vae_source(len(tiny.vae.config.block_out_channels)))


def whole(tiny: Tiny) -> dict[str, Tensor]:
    """All weights as a file with everything has them."""
    weights = {UNET + name: weight for name, weight in denoiser_in_file(tiny.transformer).items()}
    weights |= {f"first_stage_model.{name}": weight for name, weight in vae_in_file(tiny).items()}
    for encoder, tensors in encoders_in_file(tiny).items():
        weights |= {f"text_encoders.{encoder}.transformer.{name}": weight for name, weight in tensors.items()}
    return {name: weight.clone() for name, weight in weights.items()}


def write(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write a file, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.clone().contiguous() for name, weight in weights.items()}, path)
    return path
