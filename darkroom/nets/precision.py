"""Which number format a network computes in. Knows devices and number formats, nothing of any network."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """What UNets or transformers compute in, and what autoencoders do."""

    denoiser: torch.dtype
    vae: torch.dtype


def choose_formats(
    precision: Precision,
    vae_precision: Precision,
    device: torch.device,
    *,
    no_half: bool = False,
    no_half_vae: bool = False,
) -> Formats:
    """The formats that settings mean. An autoencoder's "auto" is what the other networks have.

    `no_half` is fp32 for all; `no_half_vae` for autoencoders.
    """
    denoiser = torch.float32 if no_half else choose_dtype(precision, device)
    if no_half or no_half_vae:
        return Formats(denoiser=denoiser, vae=torch.float32)
    return Formats(denoiser=denoiser, vae=denoiser if vae_precision == "auto" else choose_dtype(vae_precision, device))


def text_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The format of the text encoder, given the UNet's.

    On a processor always fp32: it runs once per prompt, and its rounding errors would touch every step.
    """
    return torch.float32 if device.type == "cpu" else dtype


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The same format, or bf16 instead of fp16 for networks whose numbers grow beyond what fp16 can hold."""
    return torch.bfloat16 if dtype == torch.float16 else dtype
