"""Blocks that are quick in bf16 answer as diffusers' own do, within rounding; in float32 they are diffusers' own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from darkroom.nets.attention import QuickTransformer, attend, quicken_transformers
from darkroom.nets.libraries import ResnetBlock2D, Transformer2DModel
from darkroom.nets.native_norms import find_norm_kernel
from darkroom.nets.norms import normalise_by, quicken_group_norms
from darkroom.nets.packing import pack_layers, suits
from darkroom.nets.residual import QuickResnet, quicken_resnets

needs_kernels = pytest.mark.skipif(not suits(torch.zeros(1, dtype=torch.bfloat16)), reason="no bf16 kernels here")


def transformers(*, linear: bool) -> tuple[Any, Any]:
    """diffusers' transformer and a quick one of the same weights, in float32."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 32, "num_layers": 2}
    sizes |= {"cross_attention_dim": 24, "norm_num_groups": 8, "use_linear_projection": linear}
    theirs, ours = (Transformer2DModel(**sizes).eval().requires_grad_(False) for _ in range(2))
    pack_layers(ours)
    quicken_transformers(ours)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def resnets(out: int) -> tuple[Any, Any]:
    """diffusers' residual block and a quick one of the same weights, in float32."""
    torch.manual_seed(0)
    theirs, ours = (
        ResnetBlock2D(in_channels=32, out_channels=out, temb_channels=20, groups=8).eval().requires_grad_(False)
        for _ in range(2)
    )
    quicken_group_norms(ours)
    pack_layers(ours)
    quicken_resnets(ours)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def picture(channels: int = 32, height: int = 6, width: int = 10) -> Tensor:
    x = torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


@needs_kernels
@pytest.mark.parametrize("linear", [False, True])
@torch.inference_mode()
def test_a_transformer_in_half_precision_answers_as_diffusers_does(linear: bool) -> None:
    theirs, ours = transformers(linear=linear)
    x, context = picture(), torch.randn(3, 77, 24, generator=torch.Generator().manual_seed(2))
    exact = theirs(x, encoder_hidden_states=context, return_dict=False)[0]
    plain = theirs.bfloat16()(x.bfloat16(), encoder_hidden_states=context.bfloat16(), return_dict=False)[0]
    [quick] = ours.bfloat16()(x.bfloat16(), encoder_hidden_states=context.bfloat16(), return_dict=False)
    assert quick.is_contiguous(memory_format=torch.channels_last)
    assert (quick - exact).abs().mean() <= 1.05 * (plain - exact).abs().mean()


@needs_kernels
@pytest.mark.parametrize("out", [32, 48])
@torch.inference_mode()
def test_a_residual_block_in_half_precision_answers_as_diffusers_does(out: int) -> None:
    theirs, ours = resnets(out)
    x, embedding = picture(), torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    exact = theirs(x, embedding)
    plain = theirs.bfloat16()(x.bfloat16(), embedding.bfloat16())
    kept = x.bfloat16()
    quick = ours.bfloat16()(kept, embedding.bfloat16())
    assert torch.equal(kept, x.bfloat16())
    assert (quick - exact).abs().mean() <= 1.05 * (plain - exact).abs().mean()


@needs_kernels
@pytest.mark.parametrize("out", [32, 48])
@torch.inference_mode()
def test_a_residual_block_that_has_a_kernel_is_nearer_to_the_truth(out: int, tmp_path: Path) -> None:
    kernel = find_norm_kernel(tmp_path)
    if kernel is None:
        pytest.skip("no AVX2 or no C compiler here")
    theirs, ours = resnets(out)
    x, embedding = picture(), torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    exact = theirs(x, embedding)
    kept = x.bfloat16()
    plain = ours.bfloat16()(kept, embedding.bfloat16())
    normalise_by(ours, kernel)
    quick = ours(kept, embedding.bfloat16())
    assert torch.equal(kept, x.bfloat16())
    assert (quick - exact).abs().mean() < (plain - exact).abs().mean()
    assert torch.equal(ours(kept[1:2], embedding[1:2].bfloat16()), quick[1:2])
    normalise_by(ours, None)
    assert torch.equal(ours(kept, embedding.bfloat16()), plain)


@torch.inference_mode()
def test_in_single_precision_blocks_are_diffusers_own() -> None:
    x = picture()
    theirs, ours = transformers(linear=False)
    context = torch.randn(3, 77, 24)
    assert isinstance(ours, QuickTransformer)
    answer = ours(x, encoder_hidden_states=context, return_dict=False)[0]
    assert torch.equal(answer, theirs(x, encoder_hidden_states=context, return_dict=False)[0])
    theirs, ours = resnets(48)
    assert isinstance(ours, QuickResnet)
    assert torch.equal(ours(x, torch.ones(3, 20)), theirs(x, torch.ones(3, 20)))


@pytest.mark.parametrize("keys", [1, 77, 80, 154])
@torch.inference_mode()
def test_keys_that_fill_up_a_row_get_no_attention(keys: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 12, 32), torch.randn(2, keys, 32), torch.randn(2, keys, 32)
    q, k, v = (x.view(2, -1, 4, 8).transpose(1, 2) for x in (query, key, value))
    expected = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 12, 32)
    torch.testing.assert_close(attend(query, key, value, 4), expected)
