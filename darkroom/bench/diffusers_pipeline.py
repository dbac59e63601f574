"""diffusers' pipeline as its documentation has it, called for one picture at a time.

Its networks are read from the same file by diffusers' own loader; nothing of Darkroom's engine takes part.
"""

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from darkroom.bench.orders import Order
from darkroom.bench.weights import original_config
from darkroom.nets.layout import clip_sizes
from darkroom.nets.libraries import AutoencoderKL, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, UNet2DConditionModel

Pipeline = Any
"""diffusers.StableDiffusionPipeline or its like. Looked up late: it may be imported only after darkroom.nets.libraries.
"""

TEXT = "cond_stage_model.transformer.text_model."
BOS, EOS = 49406, 49407
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def pipeline(told: dict[str, Any]) -> Callable[[Order], object]:
    """What draws with diffusers. `told["options"]` has the number format (`dtype`) and whether to compile."""
    import diffusers
    import transformers

    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(told["threads"])
    name, path, options = told["name"], Path(told["path"]), told["options"]
    dtype = getattr(torch, options["dtype"])
    config = original_config(name) if name in ("sd15", "sdxl") else _config_beside(path)
    parts = {
        "vae": AutoencoderKL.from_single_file(str(path), original_config=config, torch_dtype=dtype),
        "unet": UNet2DConditionModel.from_single_file(str(path), original_config=config, torch_dtype=dtype),
        "scheduler": diffusers.EulerDiscreteScheduler(**SCHEDULE),
    }
    if name == "sdxl":
        nothing = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        pipe: Pipeline = diffusers.StableDiffusionXLPipeline(**parts, **nothing, add_watermarker=False)
    else:
        beside = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        text = _text_encoder(path).to(dtype)
        pipe = diffusers.StableDiffusionPipeline(**parts, **beside, text_encoder=text, tokenizer=_tokenizer())
    pipe.set_progress_bar_config(disable=True)
    pipe.to(told["device"])
    if options.get("compile"):
        pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)
        pipe.vae.decode = torch.compile(pipe.vae.decode)
    words = _embeddings(told["device"], dtype) if name == "sdxl" else {}
    return lambda order: draw(pipe, order, told["device"], words)


@torch.inference_mode()
def draw(pipe: Pipeline, order: Order, device: str, words: dict[str, Any]) -> None:
    """One picture, decoded, as a program that calls the pipeline would make it."""
    pipe(
        **(words or {"prompt": order.prompt}),
        num_inference_steps=order.steps,
        guidance_scale=order.cfg_scale,
        width=order.size,
        height=order.size,
        generator=torch.Generator(device).manual_seed(order.seed),
    )


def _embeddings(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Stand-ins for encoded texts: the pipeline of SDXL is spared its text encoders, which take next to no time."""
    shapes = {"prompt_embeds": (1, 77, 2048), "pooled_prompt_embeds": (1, 1280)}
    one = {name: torch.randn(shape).to(device, dtype) for name, shape in shapes.items()}
    return one | {f"negative_{name}": value for name, value in one.items()}


def _config_beside(checkpoint: Path) -> dict[str, Any]:
    """The YAML beside a checkpoint, with the width of heads turned into their number, which is all diffusers reads."""
    config: dict[str, Any] = yaml.safe_load(checkpoint.with_suffix(".yaml").read_text(encoding="utf-8"))
    unet = config["model"]["params"]["unet_config"]["params"]
    if "num_head_channels" in unet:
        unet["num_heads"] = [unet["model_channels"] * m // unet["num_head_channels"] for m in unet["channel_mult"]]
    return config


def _text_encoder(checkpoint: Path) -> CLIPTextModel:
    """CLIP's text half, with the sizes that its tensors tell."""
    weights = {k.removeprefix(TEXT): v.float() for k, v in load_file(checkpoint).items() if k.startswith(TEXT)}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    model = CLIPTextModel(CLIPTextConfig(**clip_sizes(shapes), bos_token_id=BOS, eos_token_id=EOS))
    missing, surplus = model.load_state_dict(weights, strict=False)
    wrong = [name for name in (*missing, *surplus) if not name.endswith("position_ids")]
    if wrong:
        raise ValueError(f"{checkpoint.name}: the text encoder does not fit: {wrong[:5]}")
    return model.eval()


def _tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer from the vocabulary in the package."""
    with as_file(files("darkroom") / "nets" / "data" / "clip_tokenizer") as folder:
        return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=77)
