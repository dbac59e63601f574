"""Attention and the transformer blocks around it, quick in bf16 on a processor and diffusers' own everywhere else.

Sums that diffusers computes one after the other are part of the products before them here, and tokens stay in the order
that they have in a channels-last picture, so that neither way between the two copies anything.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from darkroom.nets.libraries import GEGLU, Attention, BasicTransformerBlock, Transformer2DModel
from darkroom.nets.native_attention import Kernel, fits
from darkroom.nets.packing import PackedLinear, suits

# torch's kernel is twice as quick where the number of keys is a multiple of this (torch 2.13, AMX, 77 keys).
_KEYS = 16


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Softmax attention `[B, N, C]` of queries `[B, N, C]` to keys and values `[B, M, C]`, each `heads` side by side.

    Vaswani et al. 2017, arXiv:1706.03762, equation 1.
    """
    missing = -key.shape[1] % _KEYS
    mask = None
    if missing:
        mask = query.new_zeros(1, 1, 1, key.shape[1] + missing)
        mask[..., key.shape[1] :] = -torch.inf
        key, value = functional.pad(key, (0, 0, 0, missing)), functional.pad(value, (0, 0, 0, missing))
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class QuickAttention(Attention):  # type: ignore[misc]  # diffusers has no types
    """Attention of tokens `[B, N, C]` to themselves or to a context `[B, M, width]`, by `kernel` if it has one."""

    kernel: Kernel | None = None

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **others: object) -> Tensor:
        """Attend and project; the answer has the shape and type of `hidden_states`."""
        if not suits(hidden_states) or others.get("attention_mask") is not None:
            answer: Tensor = super().forward(hidden_states, encoder_hidden_states, **others)
            return answer
        projected: Tensor = self.to_out[0](self.look(hidden_states, encoder_hidden_states))
        return projected

    def look(self, x: Tensor, context: Tensor | None) -> Tensor:
        """What is found, before the last projection."""
        seen = x if context is None else context
        query, key, value = self.to_q(x), self.to_k(seen), self.to_v(seen)
        if self.kernel is not None and fits(query, self.heads):
            return self.kernel(query, key, value, self.heads)
        return attend(query, key, value, self.heads)


class QuickGeglu(GEGLU):  # type: ignore[misc]  # diffusers has no types
    """A linear layer times another one's GELU: Shazeer 2020, arXiv:2002.05202, equation 6."""

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """Twice the width of `proj` makes one of the answer; both halves are computed straight into it."""
        proj, is_quick = self.proj, suits(hidden_states) and not torch.is_grad_enabled()
        if is_quick and isinstance(proj, PackedLinear) and proj.weight.dtype == torch.bfloat16:
            return proj.gated(hidden_states)
        answer: Tensor = super().forward(hidden_states)
        return answer


class QuickBlock(BasicTransformerBlock):  # type: ignore[misc]  # diffusers has no types
    """Self-attention, attention to the text, and two layers, each added to what it got."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **others: Any) -> Tensor:
        """Tokens `[B, N, C]` to tokens."""
        if not suits(hidden_states):
            answer: Tensor = super().forward(hidden_states, attention_mask, *args, **others)
            return answer
        context = others.get("encoder_hidden_states")
        x = self.attn1(self.norm1(hidden_states)).add_(hidden_states)
        x = self.attn2.to_out[0].plus(self.attn2.look(self.norm2(x), context), x)
        narrow, _, widen = self.ff.net
        added: Tensor = widen.plus(narrow(self.norm3(x)), x)
        return added


class QuickTransformer(Transformer2DModel):  # type: ignore[misc]  # diffusers has no types
    """Transformer blocks on the pixels of a picture `[B, C, H, W]`, in channels-last order from end to end."""

    def forward(self, hidden_states: Tensor, *args: Any, **others: Any) -> Any:
        """As diffusers': a tuple of one picture."""
        if not suits(hidden_states):
            return super().forward(hidden_states, *args, **others)
        context = others.get("encoder_hidden_states")
        height, width = hidden_states.shape[-2:]
        x = self.norm(hidden_states)
        if not self.use_linear_projection:
            x = self.proj_in(x)
        x = x.permute(0, 2, 3, 1).flatten(1, 2)
        if self.use_linear_projection:
            x = self.proj_in(x)
        for block in self.transformer_blocks:
            x = block(x, encoder_hidden_states=context)
        if self.use_linear_projection:
            tokens = hidden_states.permute(0, 2, 3, 1).flatten(1, 2)
            return (_picture(self.proj_out.plus(x, tokens), height, width),)
        return (self.proj_out.plus(_picture(x, height, width), hidden_states),)


def _picture(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens `[B, H * W, C]` as a channels-last picture `[B, C, H, W]`."""
    return tokens.view(len(tokens), height, width, -1).permute(0, 3, 1, 2)


def attend_by(network: nn.Module, kernel: Kernel | None) -> None:
    """Have all quick attention of a network computed by a kernel, or by torch's (None)."""
    for part in network.modules():
        if isinstance(part, QuickAttention):
            part.kernel = kernel


def quicken_transformers(network: nn.Module) -> None:
    """Make all transformers of a UNet quick ones."""
    quick: dict[Any, Any] = {Attention: QuickAttention, GEGLU: QuickGeglu, BasicTransformerBlock: QuickBlock}
    for transformer in network.modules():
        if type(transformer) is Transformer2DModel:
            transformer.__class__ = QuickTransformer
            for part in transformer.modules():
                part.__class__ = quick.get(type(part), type(part))
