"""The one door through which diffusers and transformers come in: what of them is used, by name.

Both import torchvision where it is installed, and spandrel needs it. The package index has it for CUDA alone; beside a
torch for processors its compiled part cannot be loaded, and importing it fails over two operators that nobody here
calls. They are declared before anything can ask for them.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _complete_torchvision() -> None:
    """Declare the operators that torchvision registers kernels for, unless its own library does."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        torch.ops.load_library(Path(found.origin).with_name("_C.so"))  # type: ignore[no-untyped-call]
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", _BOXES)


_complete_torchvision()

from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderTiny
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    DPTConfig,
    DPTForDepthEstimation,
    T5Config,
    T5EncoderModel,
)

__all__ = [
    "GEGLU", "Attention", "AttnProcessor", "AutoencoderKL", "BasicTransformerBlock", "BlipConfig",
    "BlipForConditionalGeneration", "CLIPConfig", "CLIPModel", "CLIPTextConfig", "CLIPTextModel",
    "CLIPTextModelWithProjection", "CLIPTokenizer", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "DPTConfig",
    "DPTForDepthEstimation", "DecoderTiny", "DownBlock2D", "Downsample2D", "FeedForward", "FluxTransformer2DModel",
    "ResnetBlock2D", "SD3Transformer2DModel", "T5Config", "T5EncoderModel", "TimestepEmbedding", "Timesteps",
    "Transformer2DModel", "UNet2DConditionModel", "UNetMidBlock2D", "UNetMidBlock2DCrossAttn", "UpBlock2D",
    "Upsample2D",
]  # fmt: skip
