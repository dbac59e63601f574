"""Which number formats the settings mean."""

import pytest
import torch

from darkroom.nets.precision import Formats, Precision, choose_dtype, choose_formats

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


def test_half_of_everything_is_what_a_gpu_gets() -> None:
    assert choose_formats("auto", "auto", GPU) == Formats(denoiser=FP16, vae=FP16)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", FP32), ("bf16", BF16), ("fp16", FP16)])
def test_a_format_that_is_named_is_taken(precision: Precision, dtype: torch.dtype) -> None:
    assert choose_formats(precision, "auto", CPU) == Formats(denoiser=dtype, vae=dtype)
    assert choose_formats("fp16", precision, GPU) == Formats(denoiser=FP16, vae=dtype)


def test_an_autoencoder_may_be_in_full_alone_and_all_may() -> None:
    assert choose_formats("auto", "auto", GPU, no_half_vae=True) == Formats(denoiser=FP16, vae=FP32)
    assert choose_formats("fp16", "bf16", GPU, no_half=True) == Formats(denoiser=FP32, vae=FP32)
    assert choose_formats("bf16", "auto", CPU, no_half_vae=True) == Formats(denoiser=BF16, vae=FP32)


def test_a_processor_never_gets_fp16_by_itself() -> None:
    assert choose_dtype("auto", CPU) in (FP32, BF16)
