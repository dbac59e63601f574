"""Stable Diffusion 1.x: how its three networks are put together from a single-file checkpoint, at any size."""

import torch

from darkroom.errors import BadModelFile
from darkroom.nets.checkpoint import Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.ldm import read_clip, read_unet, read_vae
from darkroom.nets.merging import TEXT_BLOCK, Merging, text_places
from darkroom.nets.network import Network
from darkroom.nets.precision import text_dtype
from darkroom.nets.text import ClipText
from darkroom.nets.tokenizer import ClipTokenizer

# Files saved before transformers wrapped its text model lack the last part.
_TEXT = ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")


def build(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Network:
    """Load all three networks; every tensor of the file must have its place. Raises BadModelFile."""
    try:
        prefix = next(prefix for prefix in _TEXT if checkpoint.below(prefix))
        text_model = read_clip(checkpoint, prefix, device, text_dtype(dtype, device))
        unet_model, unet_adapters = read_unet(checkpoint, config, device, dtype)
        vae_model = read_vae(checkpoint, config, device, dtype)
    except (KeyError, IndexError, ValueError) as error:
        raise BadModelFile(f"{checkpoint.path.name}: not laid out like Stable Diffusion 1.x: {error}") from error
    checkpoint.refuse_leftovers()
    return Network(
        config=config,
        tokenizer=ClipTokenizer(),
        text_encoder=ClipText(text_model),
        unet_model=unet_model,
        vae_model=vae_model,
        text_adapters=Merging(text_model, text_places(text_model), lambda _: TEXT_BLOCK),
        unet_adapters=unet_adapters,
    )
