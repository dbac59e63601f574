"""The noise predictor: latents, timesteps and conditioning in, raw answer out. Knows no sigma and no guidance."""

from typing import Any

import torch
from torch import Tensor

from darkroom.nets.attention import quicken_transformers
from darkroom.nets.convolutions import steady_convolutions
from darkroom.nets.libraries import UNet2DConditionModel
from darkroom.nets.norms import join_activation, quicken_group_norms
from darkroom.nets.packing import pack_layers, suits
from darkroom.nets.residual import quicken_resnets
from darkroom.nets.shared_beginning import find_first, shared_beginning
from darkroom.nets.upsampling import CroppedUpsample


def build_unet(sizes: dict[str, Any]) -> UNet2DConditionModel:
    """A UNet of these sizes (see `layout.unet_sizes`) without weights, on the meta device."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sizes)
        for block in unet.up_blocks:
            for place, old in enumerate(block.upsamplers or ()):
                block.upsamplers[place] = CroppedUpsample(old.channels, use_conv=True, out_channels=old.out_channels)
        quicken_group_norms(unet)
        join_activation(unet)
        steady_convolutions(unet)
        pack_layers(unet)
    quicken_resnets(unet)
    quicken_transformers(unet)
    return unet.requires_grad_(False).eval()


def denoise(
    unet: UNet2DConditionModel, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None = None
) -> Tensor:
    """The raw output `[B, C, h, w]` float32 for latents `[B, C, h, w]`, timesteps `[B]`, context `[B, L, width]` and
    vectors `[B, V]`, for UNets that want them.

    Timesteps may be fractions; they stay float32 up to the sinusoidal embedding, whatever the network computes in.
    """
    x, timesteps, context, labels = inputs(unet, x, timesteps, context, vector)
    first = find_first(x, timesteps) if labels is None and suits(x) else range(len(x))
    with shared_beginning(unet, first):
        return apply(unet, x, timesteps, context, labels).float()


def apply(
    unet: UNet2DConditionModel, x: Tensor, timesteps: Tensor, context: Tensor, labels: Tensor | None = None
) -> Tensor:
    """One forward pass on what `inputs` made, in the network's format."""
    output: Tensor = unet(x, timesteps, encoder_hidden_states=context, class_labels=labels, return_dict=False)[0]
    return output


def inputs(
    unet: UNet2DConditionModel, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What `denoise` is asked, as the network wants it: on its device, latents channels-last, all but the timesteps in
    its format.
    """
    like = unet.conv_in.bias  # weights may be held in eight bits; unet.device and unet.dtype walk through all modules
    x = x.to(like.device, like.dtype, memory_format=torch.channels_last)
    labels = None if vector is None else vector.to(like.device, like.dtype)
    return x, timesteps.to(like.device, torch.float32), context.to(like.device, like.dtype), labels
