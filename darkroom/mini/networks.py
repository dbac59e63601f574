"""The shapes of darkroom-mini: Stable Diffusion's three networks, small, and the YAML that describes them.

Knows how to build untrained networks and to name their sizes. Knows nothing of data, training or files.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.nets.libraries import AutoencoderKL, CLIPTextConfig, CLIPTextModel, UNet2DConditionModel

NATIVE_SIZE = 128
LATENT_SIZE = NATIVE_SIZE // 8
# Larger frames fall apart into several objects: they are laid out at the native size and refined.
LARGEST_SIZE = NATIVE_SIZE
TEXT_WIDTH = 128
TEXT_LAYERS = 3
HEAD_WIDTH = 64
UNET_CHANNELS = (128, 128)
VAE_CHANNELS = (64, 64, 128, 128)
TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def build_vae(channels: Sequence[int] = VAE_CHANNELS) -> AutoencoderKL:
    """The autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752): factor 8, 4 latent channels."""
    return AutoencoderKL(
        block_out_channels=tuple(channels),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        latent_channels=4,
        norm_num_groups=32,
        sample_size=NATIVE_SIZE,
        scaling_factor=1.0,
    )


def build_unet(channels: Sequence[int] = UNET_CHANNELS) -> UNet2DConditionModel:
    """Stable Diffusion 1's UNet. Its finest level has no attention, so that a frame of 512 stays cheap."""
    rest = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * rest),
        up_block_types=(*("CrossAttnUpBlock2D",) * rest, "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        # diffusers keeps an old misnomer: this is the number of heads, not their width.
        attention_head_dim=tuple(width // HEAD_WIDTH for width in channels),
        norm_num_groups=32,
        use_linear_projection=False,
    )


def build_text(layers: int = TEXT_LAYERS, vocabulary: int = 49408) -> CLIPTextModel:
    """CLIP's text transformer (Radford et al. 2021, arXiv:2103.00020), small."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=TEXT_WIDTH * 4,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=TEXT_WIDTH // HEAD_WIDTH,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


class TextAndUnet(nn.Module):
    """The two networks that learn together in the last stage."""

    def __init__(self, text: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text = text
        self.unet = unet


def alphas_cumprod() -> Tensor:
    """alpha-bar of each timestep, [1000]; betas linear in their square root, as Stable Diffusion has them."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def ldm_config(scale_factor: float = 1.0) -> dict[str, Any]:
    """The YAML beside the weights, in the form of Stable Diffusion's v1-inference.yaml."""
    unet = {
        "image_size": LATENT_SIZE,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": UNET_CHANNELS[0],
        "attention_resolutions": [2**level for level in range(1, len(UNET_CHANNELS))],
        "num_res_blocks": 1,
        "channel_mult": [width // UNET_CHANNELS[0] for width in UNET_CHANNELS],
        "num_head_channels": HEAD_WIDTH,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "transformer_depth": 1,
        "context_dim": TEXT_WIDTH,
        "use_checkpoint": False,
        "legacy": False,
    }
    ddconfig = {
        "double_z": True,
        "z_channels": 4,
        "resolution": NATIVE_SIZE,
        "in_channels": 3,
        "out_ch": 3,
        "ch": VAE_CHANNELS[0],
        "ch_mult": [width // VAE_CHANNELS[0] for width in VAE_CHANNELS],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    text = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": TEXT_WIDTH * 4,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": TEXT_WIDTH // HEAD_WIDTH,
        "max_length": 77,
        "hidden_act": "quick_gelu",
    }
    params = {
        "linear_start": BETA_START,
        "linear_end": BETA_END,
        "timesteps": TIMESTEPS,
        "image_size": LATENT_SIZE,
        "channels": 4,
        "conditioning_key": "crossattn",
        "scale_factor": scale_factor,
        "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {"embed_dim": 4, "ddconfig": ddconfig, "lossconfig": {"target": "torch.nn.Identity"}},
        },
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder", "params": text},
    }
    model = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}
    return {"model": model, "darkroom": {"native_size": NATIVE_SIZE, "largest_size": LARGEST_SIZE}}
