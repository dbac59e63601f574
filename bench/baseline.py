"""What Darkroom is measured against: a plain diffusers pipeline in fp32, called for one picture at a time.

Its networks are read from the same file by diffusers' own loader; nothing of Darkroom's engine takes part.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
import yaml
from safetensors.torch import load_file

from darkroom.nets.layout import clip_sizes
from darkroom.nets.libraries import AutoencoderKL, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, UNet2DConditionModel

Pipeline = Any
"""diffusers.StableDiffusionPipeline. Looked up late: it may be imported only after darkroom.nets.libraries."""

TEXT = "cond_stage_model.transformer.text_model."
BOS, EOS = 49406, 49407
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def pipeline(checkpoint: Path) -> Pipeline:
    """The pipeline of a single-file checkpoint with its YAML beside it, in fp32, ready to be called."""
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    config = original_config(checkpoint)
    found = diffusers.StableDiffusionPipeline(
        vae=AutoencoderKL.from_single_file(str(checkpoint), original_config=config, torch_dtype=torch.float32),
        unet=UNet2DConditionModel.from_single_file(str(checkpoint), original_config=config, torch_dtype=torch.float32),
        text_encoder=text_encoder(checkpoint),
        tokenizer=tokenizer(),
        scheduler=diffusers.EulerDiscreteScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    found.set_progress_bar_config(disable=True)
    return found


def original_config(checkpoint: Path) -> dict[str, Any]:
    """The YAML beside a checkpoint, with the width of heads turned into their number, which is all diffusers reads."""
    config: dict[str, Any] = yaml.safe_load(checkpoint.with_suffix(".yaml").read_text(encoding="utf-8"))
    unet = config["model"]["params"]["unet_config"]["params"]
    if "num_head_channels" in unet:
        unet["num_heads"] = [unet["model_channels"] * m // unet["num_head_channels"] for m in unet["channel_mult"]]
    return config


def text_encoder(checkpoint: Path) -> CLIPTextModel:
    """CLIP's text half, with the sizes that its tensors tell."""
    weights = {k.removeprefix(TEXT): v.float() for k, v in load_file(checkpoint).items() if k.startswith(TEXT)}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    model = CLIPTextModel(CLIPTextConfig(**clip_sizes(shapes), bos_token_id=BOS, eos_token_id=EOS))
    missing, surplus = model.load_state_dict(weights, strict=False)
    wrong = [name for name in (*missing, *surplus) if not name.endswith("position_ids")]
    if wrong:
        raise ValueError(f"{checkpoint.name}: the text encoder does not fit: {wrong[:5]}")
    return model.eval()


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer from the vocabulary in the package."""
    with as_file(files("darkroom") / "nets" / "data" / "clip_tokenizer") as folder:
        return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=77)


@torch.inference_mode()
def draw(pipe: Pipeline, prompt: str, seed: int, *, steps: int, size: int, cfg_scale: float) -> None:
    """One picture, decoded, as a program that calls the pipeline would make it."""
    pipe(
        prompt,
        num_inference_steps=steps,
        guidance_scale=cfg_scale,
        width=size,
        height=size,
        generator=torch.Generator("cpu").manual_seed(seed),
    )
