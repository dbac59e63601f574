"""Stable Diffusion 1.x: how its three networks are put together from a single-file checkpoint, at any size."""

import torch

from darkroom.errors import BadModelFile
from darkroom.nets import layout
from darkroom.nets.checkpoint import UNET, VAE, Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.libraries import AutoencoderKL, CLIPTextConfig, CLIPTextModel, UNet2DConditionModel
from darkroom.nets.merging import Merging, text_places, unet_places
from darkroom.nets.network import Network
from darkroom.nets.precision import text_dtype
from darkroom.nets.text import ClipText
from darkroom.nets.tokenizer import BOS, EOS, ClipTokenizer
from darkroom.nets.unet import build_unet
from darkroom.nets.vae import build_vae

# Files saved before transformers wrapped its text model lack the last part.
_TEXT = ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")


def build(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Network:
    """Load all three networks; every tensor of the file must have its place. Raises BadModelFile."""
    try:
        text_model = _text_model(checkpoint, device, text_dtype(dtype, device))
        unet_model, unet_adapters = _unet(checkpoint, config, device, dtype)
        vae_model = _vae(checkpoint, config, device, dtype)
    except (KeyError, IndexError, ValueError) as error:
        raise BadModelFile(f"{checkpoint.path.name}: not laid out like Stable Diffusion 1.x: {error}") from error
    checkpoint.refuse_leftovers()
    return Network(
        config=config,
        tokenizer=ClipTokenizer(),
        text_encoder=ClipText(text_model),
        unet_model=unet_model,
        vae_model=vae_model,
        text_adapters=Merging(text_model, text_places(text_model)),
        unet_adapters=unet_adapters,
    )


def _text_model(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> CLIPTextModel:
    prefix = next(prefix for prefix in _TEXT if checkpoint.below(prefix))
    sizes = layout.clip_sizes(checkpoint.below(prefix))
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=BOS, eos_token_id=EOS))
    checkpoint.fill(model, lambda name: prefix + name, dtype, device)
    model.embeddings.position_ids = torch.arange(sizes["max_position_embeddings"], device=device)[None]
    return model.requires_grad_(False).eval()


def _unet(
    checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> tuple[UNet2DConditionModel, Merging]:
    shapes = checkpoint.below(UNET)
    sizes = layout.unet_sizes(shapes, config)
    source = layout.unet_source(shapes, sizes["layers_per_block"])
    unet = build_unet(sizes)
    checkpoint.fill(unet, lambda name: UNET + source(name), dtype, device)
    return unet, Merging(unet, unet_places(unet, source))


def _vae(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    shapes = checkpoint.below(VAE)
    sizes = layout.vae_sizes(shapes, config)
    source = layout.vae_source(len(sizes["block_out_channels"]))
    vae = build_vae(sizes)
    checkpoint.fill(vae, lambda name: VAE + source(name), dtype, device)
    return vae
