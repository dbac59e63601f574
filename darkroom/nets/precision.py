"""Which number format a network computes in. Knows devices and number formats, nothing of any network."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices in hardware (AMX, AVX512-BF16 or Arm's BF16 extension)."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16"))


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The format of UNet and VAE. "auto": fp16 on a GPU, bf16 on a processor that has it in hardware, else fp32.

    fp16 on a processor is slower than fp32: there is no hardware for it in the kernels that torch uses.
    """
    match precision:
        case "fp32":
            return torch.float32
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
        case "auto":
            if device.type != "cpu":
                return torch.float16
            return torch.bfloat16 if cpu_has_fast_bf16() else torch.float32


def text_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The format of the text encoder, given the UNet's.

    On a processor always fp32: it runs once per prompt, and its rounding errors would touch every step.
    """
    return torch.float32 if device.type == "cpu" else dtype
