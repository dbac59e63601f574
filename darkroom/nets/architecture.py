"""Which architecture a checkpoint is of, told by its tensors' names and shapes. Knows no files; no torch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by name of all tensors of a file."""

Family = Literal["sd1", "sd2", "sdxl", "refiner", "sd3", "flux"]
"""What can be loaded."""

Conditioning = Literal["none", "inpaint", "edit", "depth"]
"""What a checkpoint's UNet sees beside the latent."""


def identify(shapes: Shapes) -> str:
    """The `Family` of a checkpoint, or a phrase naming what else the file holds."""
    return next((name for name, holds in _ARCHITECTURES if holds(shapes)), "an unknown kind of file")


def conditioning_of(shapes: Shapes) -> Conditioning:
    """What a checkpoint's UNet sees beside the latent, told by the channels of its input."""
    shape = shapes.get(_INPUT, ())
    return _BY_CHANNELS.get(shape[1], "none") if len(shape) > 1 else "none"


def is_guided(shapes: Shapes) -> bool:
    """Whether a FLUX.1 checkpoint is told how strongly the prompt guides it."""
    return any(prefix + "guidance_in.in_layer.weight" in shapes for prefix in ("", _UNET))


def text_width(shapes: Shapes) -> int | None:
    """The width of a checkpoint's token vectors, all its text encoders together; None where it has none."""
    tables = [
        shape
        for name, shape in shapes.items()
        # Below the other name are encoders that no embedding was ever made for.
        if name.endswith("token_embedding.weight") and not name.startswith("text_encoders.")
    ]
    return sum(shape[1] for shape in tables if len(shape) > 1) or None


def _has(name: str) -> Callable[[Shapes], bool]:
    return lambda shapes: name in shapes


def _starts(*prefixes: str) -> Callable[[Shapes], bool]:
    return lambda shapes: any(name.startswith(prefixes) for name in shapes)


def _width(name: str, *widths: int) -> Callable[[Shapes], bool]:
    return lambda shapes: len(shapes.get(name, ())) > 1 and shapes[name][1] in widths


_UNET = "model.diffusion_model."
_INPUT = _UNET + "input_blocks.0.0.weight"
_BY_CHANNELS: Mapping[int, Conditioning] = {5: "depth", 8: "edit", 9: "inpaint"}
_OPEN_CLIP_H = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
_OPEN_CLIP_ALONE = "conditioner.embedders.0.model.ln_final.weight"

# In order: the first that holds is the answer.
_ARCHITECTURES: Iterable[tuple[str, Callable[[Shapes], bool]]] = (
    ("sd3", _starts("joint_blocks.", _UNET + "joint_blocks.")),
    ("flux", _starts("double_blocks.", _UNET + "double_blocks.")),
    ("sdxl", _has("conditioner.embedders.1.model.ln_final.weight")),
    ("refiner", lambda shapes: _OPEN_CLIP_ALONE in shapes and _UNET + "label_emb.0.0.weight" in shapes),
    ("Stable Diffusion 2 unclip", _has("embedder.model.ln_final.weight")),
    ("sd2", lambda shapes: _OPEN_CLIP_H in shapes or _OPEN_CLIP_ALONE in shapes),
    ("AltDiffusion", _starts("cond_stage_model.roberta.")),
    (
        "a Stable Diffusion model with an unusual input",
        # 4 is the latent alone; 9 has a mask and a masked picture beside it, 8 a picture to edit, 5 a depth map.
        lambda shapes: _INPUT in shapes and not _width(_INPUT, 4, 5, 8, 9)(shapes),
    ),
    ("sd1", lambda shapes: _INPUT in shapes and _starts("cond_stage_model.transformer.")(shapes)),
    ("a UNet without its text encoder", _has(_INPUT)),
    ("a LoRA", _starts("lora_", "base_model.model.", "unet.down_blocks.", "transformer.transformer_blocks.")),
    ("a ControlNet", _starts("control_model.", "controlnet_")),
    ("a network in diffusers' layout", _has("down_blocks.0.resnets.0.norm1.weight")),
    ("an autoencoder alone", _starts("encoder.down.", "decoder.up.", "first_stage_model.")),
    ("a textual-inversion embedding", _has("emb_params")),
)
