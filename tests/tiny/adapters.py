"""Writes tiny adapters for the tiny checkpoints: every layer of the family's names, random weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tiny.checkpoints import tiny_weights

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer."


def write_tiny_lora(folder: Path, name: str, seed: int = 0, *, size: float = 0.5, text: bool = True) -> Path:
    """Write `name.safetensors`: a low-rank change of every matrix and convolution."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file(tiny_lora(seed, size, text=text), path)
    return path


def tiny_lora(seed: int, size: float, *, text: bool) -> dict[str, Tensor]:
    """Tensors of a LoRA by kohya's names with the original's module names."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    for key, weight in tiny_weights().items():
        if not key.endswith(".weight") or weight.dim() < 2 or "embedding" in key:
            continue
        if key.startswith(UNET):
            layer = "lora_unet_" + key.removeprefix(UNET)
        elif key.startswith(TEXT) and text:
            layer = "lora_te_" + key.removeprefix(TEXT)
        else:
            continue
        layer = layer.removesuffix(".weight").replace(".", "_")
        rows, *rest = weight.shape
        scale = size / torch.tensor(rest).prod().sqrt()
        found[f"{layer}.lora_up.weight"] = torch.randn(rows, 2, *[1] * (len(rest) - 1), generator=generator)
        found[f"{layer}.lora_down.weight"] = torch.randn(2, *rest, generator=generator) * scale
        found[f"{layer}.alpha"] = torch.tensor(1.0)
    return found
