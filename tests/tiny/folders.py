"""Writes tiny models in diffusers' layout, by diffusers' and transformers' own hands."""

import json
from pathlib import Path
from typing import Any

import torch

from darkroom.nets.store import load
from tests.tiny.checkpoints import write_tiny_checkpoint

CPU = torch.device("cpu")


def write_json(path: Path, **content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_tiny_folder(folder: Path) -> Path:
    """The tiny checkpoint as diffusers and transformers save its networks. Gives the single file it was made of."""
    single = write_tiny_checkpoint(folder.parent / "single")
    network = load(single, single.with_suffix(".yaml"), CPU, torch.float16)
    network._unet.save_pretrained(folder / "unet")
    network._vae.module.save_pretrained(folder / "vae")
    text: Any = network._text.module
    text.save_pretrained(folder / "text_encoder")
    write_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    write_json(folder / "scheduler" / "scheduler_config.json", beta_start=0.00085, beta_end=0.012)
    return single
