"""Stable Diffusion 2.x: how its three networks are put together from a single-file checkpoint, at any size."""

from dataclasses import replace

import torch

from darkroom.errors import BadModelFile
from darkroom.nets import unet
from darkroom.nets.checkpoint import Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.ldm import read_open_clip, read_unet, read_vae
from darkroom.nets.libraries import UNet2DConditionModel
from darkroom.nets.merging import TEXT_BLOCK, TEXT_PREFIXES, Merging, open_clip_places
from darkroom.nets.network import Network
from darkroom.nets.open_clip import OpenClipText
from darkroom.nets.precision import text_dtype
from darkroom.nets.tokenizer import ClipTokenizer

LATENT_CHANNELS = 4

# The distilled models that Stability published later name their encoder as in XL.
_TEXT = ("cond_stage_model.model.", "conditioner.embedders.0.model.")


def build(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Network:
    """Load all three networks; every tensor of the file must have its place. Raises BadModelFile."""
    try:
        prefix = next(prefix for prefix in _TEXT if checkpoint.below(prefix))
        encoder = read_open_clip(checkpoint, prefix, device, text_dtype(dtype, device), pooled=False)
        unet_model, unet_adapters = read_unet(checkpoint, config, device, dtype)
        vae_model = read_vae(checkpoint, config, device, dtype)
    except (KeyError, IndexError, ValueError) as error:
        raise BadModelFile(f"{checkpoint.path.name}: not laid out like Stable Diffusion 2.x: {error}") from error
    checkpoint.refuse_leftovers()
    return Network(
        config=_probed(unet_model, config),
        tokenizer=ClipTokenizer(),
        text_encoder=OpenClipText(encoder),
        unet_model=unet_model,
        vae_model=vae_model,
        text_adapters=Merging(encoder, open_clip_places(encoder.text, TEXT_PREFIXES, "text."), lambda _: TEXT_BLOCK),
        unet_adapters=unet_adapters,
    )


def _probed(model: UNet2DConditionModel, config: ModelConfig) -> ModelConfig:
    """The configuration with what the UNet itself says that it predicts. One without weights says nothing; one that
    sees something beside the latent predicts noise.
    """
    if not config.probe or model.device.type == "meta":
        return config
    if model.config.in_channels == LATENT_CHANNELS and predicts_v(model):
        return replace(config, prediction="v")
    return replace(config, prediction="epsilon", native_size=ModelConfig().native_size)


@torch.inference_mode()
def predicts_v(model: UNet2DConditionModel) -> bool:
    """Whether a UNet answers v: for an input that is taken for pure noise, the noise is the input and v far below."""
    # A1111: these numbers tell the published models apart.
    x = torch.full((1, model.config.in_channels, 8, 8), 0.5)
    context = torch.full((1, 2, model.config.cross_attention_dim), 0.5)
    answer = unet.denoise(model, x, torch.tensor([999.0]), context)
    return float((answer - 0.5).mean()) < -1
