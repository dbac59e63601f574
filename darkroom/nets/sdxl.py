"""Stable Diffusion XL and its refiner: how their networks are put together from a single-file checkpoint."""

import torch

from darkroom.errors import BadModelFile
from darkroom.nets.checkpoint import Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.ldm import read_clip, read_open_clip, read_unet, read_vae
from darkroom.nets.merging import TEXT_BLOCK, Merging, Place, open_clip_places, text_places
from darkroom.nets.network import Network
from darkroom.nets.precision import text_dtype
from darkroom.nets.sdxl_text import SdxlText, Towers
from darkroom.nets.tokenizer import ClipTokenizer

_FIRST = "conditioner.embedders.0."
_SECOND = "conditioner.embedders.1."


def build(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Network:
    """Load all networks of a base model; every tensor of the file must have its place. Raises BadModelFile."""
    return _build(checkpoint, config, device, dtype, refiner=False)


def build_refiner(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Network:
    """Load all networks of a refiner; every tensor of the file must have its place. Raises BadModelFile."""
    return _build(checkpoint, config, device, dtype, refiner=True)


def _build(
    checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype, *, refiner: bool
) -> Network:
    try:
        towers = _towers(checkpoint, device, text_dtype(dtype, device), refiner=refiner)
        unet_model, unet_adapters = read_unet(checkpoint, config, device, dtype)
        vae_model = read_vae(checkpoint, config, device, dtype)
    except (KeyError, IndexError, ValueError) as error:
        raise BadModelFile(f"{checkpoint.path.name}: not laid out like Stable Diffusion XL: {error}") from error
    checkpoint.refuse_leftovers()
    return Network(
        config=config,
        tokenizer=ClipTokenizer(),
        text_encoder=SdxlText(towers),
        unet_model=unet_model,
        vae_model=vae_model,
        text_adapters=Merging(towers, _places(towers), lambda _: TEXT_BLOCK),
        unet_adapters=unet_adapters,
    )


def _towers(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, refiner: bool) -> Towers:
    if refiner:
        return Towers(None, read_open_clip(checkpoint, f"{_FIRST}model.", device, dtype, pooled=True))
    small = read_clip(checkpoint, f"{_FIRST}transformer.text_model.", device, dtype)
    return Towers(small, read_open_clip(checkpoint, f"{_SECOND}model.", device, dtype, pooled=True))


def _places(towers: Towers) -> dict[str, Place]:
    """Layer names of files for the text encoders. A1111: those for the second of two mean nothing to a refiner."""
    if towers.small is None:
        return open_clip_places(towers.large.text, ("text_encoder_2_",), "large.text.")
    small = text_places(towers.small, ("lora_te1_", "text_encoder_"), "small.")
    return small | open_clip_places(towers.large.text, ("lora_te2_", "text_encoder_2_"), "large.text.")
