"""The networks that the families of latent-diffusion's single files share: UNet, autoencoder and text encoders, each
loaded from a file at any size, with the places of adapters in it.
"""

import torch

from darkroom.nets import layout, open_clip_layout
from darkroom.nets.checkpoint import UNET, VAE, Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.libraries import AutoencoderKL, CLIPTextConfig, CLIPTextModel, UNet2DConditionModel
from darkroom.nets.merging import Merging, unet_block_of, unet_places
from darkroom.nets.open_clip import OpenClip
from darkroom.nets.tokenizer import BOS, EOS
from darkroom.nets.unet import build_unet
from darkroom.nets.vae import build_vae


def read_unet(
    checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> tuple[UNet2DConditionModel, Merging]:
    """The UNet, and the adapters that it carries. Raises BadModelFile; KeyError or ValueError for another layout."""
    shapes = checkpoint.below(UNET)
    sizes = layout.unet_sizes(shapes, config)
    source = layout.unet_source(shapes, sizes["layers_per_block"])
    unet = build_unet(sizes)
    checkpoint.fill(unet, lambda name: UNET + source(name), dtype, device)
    return unet, Merging(unet, unet_places(unet, source), unet_block_of(source))


def read_vae(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    """The autoencoder. Raises BadModelFile, and KeyError for another layout."""
    sizes = layout.vae_sizes(checkpoint.below(VAE), config)
    source = layout.vae_source(len(sizes["block_out_channels"]))
    vae = build_vae(sizes)
    checkpoint.fill(vae, lambda name: VAE + source(name), dtype, device, is_autoencoder=True)
    return vae


def read_clip(checkpoint: Checkpoint, prefix: str, device: torch.device, dtype: torch.dtype) -> CLIPTextModel:
    """CLIP's text encoder under a prefix. Raises BadModelFile, and KeyError for another layout."""
    sizes = layout.clip_sizes(checkpoint.below(prefix))
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=BOS, eos_token_id=EOS))
    checkpoint.fill(model, lambda name: prefix + name, dtype, device)
    _number_positions(model, device)
    return model.requires_grad_(False).eval()


def read_open_clip(
    checkpoint: Checkpoint, prefix: str, device: torch.device, dtype: torch.dtype, *, pooled: bool
) -> OpenClip:
    """OpenCLIP's text encoder under a prefix, with what makes a text's pooled vector or without. Raises BadModelFile,
    and KeyError for another layout.
    """
    shapes = checkpoint.below(prefix)
    sizes = open_clip_layout.sizes(shapes)
    with torch.device("meta"):
        model = OpenClip(sizes, shapes["text_projection"][1] if pooled else None)
    checkpoint.fill(model, open_clip_layout.source(prefix, sizes["hidden_size"]), dtype, device)
    _number_positions(model.text, device)
    return model.requires_grad_(False).eval()


def _number_positions(model: CLIPTextModel, device: torch.device) -> None:
    """Positions are counted, no file has to hold them."""
    model.embeddings.position_ids = torch.arange(model.config.max_position_embeddings, device=device)[None]
