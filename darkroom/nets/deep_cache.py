"""A UNet's inner layers, skipped: what they found at one noise level stands in for what they would find at the next.

Ma, Fang and Wang 2023, arXiv:2312.00858 (DeepCache), by the shortest way: only what lies outside of the first skip
connection is computed anew. Knows no sampler; when to skip is for others to say.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from darkroom.nets.libraries import UNet2DConditionModel
from darkroom.nets.unet import inputs


@contextmanager
def inner_features(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """A list that holds, after a call of the UNet, what its inner layers found: `[B, C, h, w]` in its own format."""
    found: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        joined = args[0]  # with what came over the first skip connection, which is computed anew
        found.append(joined[:, : joined.shape[1] - unet.conv_in.out_channels])

    hook = unet.up_blocks[-1].resnets[-1].register_forward_pre_hook(note)
    try:
        yield found
    finally:
        hook.remove()


def denoise_outside(
    unet: UNet2DConditionModel,
    features: Tensor,
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    vector: Tensor | None = None,
) -> Tensor:
    """What `unet.denoise` would answer if the inner layers had found `features` `[B, C, h, w]`."""
    x, timesteps, context, labels = inputs(unet, x, timesteps, context, vector)
    embedding = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timesteps))
    if labels is not None:
        embedding = embedding + unet.get_class_embed(sample=x, class_labels=labels)
    block = unet.up_blocks[-1]
    x = block.resnets[-1](torch.cat([features, unet.conv_in(x)], dim=1), embedding)
    for attention in list(getattr(block, "attentions", ()))[-1:]:
        x = attention(x, encoder_hidden_states=context, return_dict=False)[0]
    output: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    return output.float()
