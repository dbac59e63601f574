"""Writes tiny checkpoints in the layouts of Stable Diffusion: every name of the real thing, random weights."""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH = 64
CHANNELS = (32, 64)
VAE_CHANNELS = (32, 32, 32, 32)
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
Shape = tuple[int, ...]

_TEXT = "cond_stage_model.transformer.text_model."
_FIRST, _SECOND = "conditioner.embedders.0.", "conditioner.embedders.1.model."
LABELS = {"sdxl": WIDTH + 6 * 256, "refiner": WIDTH + 5 * 256}
"""Width of what the UNet is told beside the text: the whole text and some numbers."""

YAML = """\
darkroom:
  native_size: 64
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    scale_factor: {scale}
    parameterization: {prediction}
    unet_config:
      params: {{num_heads: 2}}
    network_config:
      params: {{num_heads: 2}}
"""


def write_tiny_checkpoint(
    folder: Path,
    name: str = "tiny",
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float16,
    prediction: str = "eps",
    scale: float = 0.18215,
    channels: int = 4,
    family: str = "sd1",
) -> Path:
    """Write `name.safetensors` and `name.yaml` into the folder (made if absent); the same seed gives the same bytes.

    `channels` are those that the UNet sees: 4 of the latent, and what it is shown beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    weights = tiny_weights(seed, dtype, family)
    if channels != 4:
        weights[UNET_INPUT] = _random(UNET_INPUT, (CHANNELS[0], channels, 3, 3), seed).to(dtype)
    save_file(weights, path)
    path.with_suffix(".yaml").write_text(YAML.format(scale=scale, prediction=prediction))
    return path


def write_tiny_vae(path: Path, seed: int = 0) -> Path:
    """Write a tiny autoencoder alone."""
    root = "first_stage_model."
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name.removeprefix(root): value for name, value in tiny_weights(seed).items() if name.startswith(root)}, path
    )
    return path


def tiny_weights(seed: int = 0, dtype: torch.dtype = torch.float16, family: str = "sd1") -> dict[str, Tensor]:
    """All tensors of a tiny checkpoint: UNet of two levels, text encoders of width 64, autoencoder of factor 8 with 4
    channels.
    """
    shapes = dict(_unet(family)) | dict(_vae()) | dict(_texts(family))
    return {name: _random(name, shape, seed).to(dtype) for name, shape in sorted(shapes.items())}


def _random(name: str, shape: Shape, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    noise = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 1 + 0.1 * noise if name.endswith("weight") else 0.02 * noise
    fan_in = math.prod(shape[1:])
    return noise * (0.02 if "embedding" in name else 0.7 / fan_in**0.5)


def _both(name: str, *shape: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _unet(family: str) -> Iterator[tuple[str, Shape]]:
    root = "model.diffusion_model."
    context = 2 * WIDTH if family == "sdxl" else WIDTH
    linear = family != "sd1"
    first, second = CHANNELS
    time = 4 * first
    yield from _both(root + "time_embed.0", time, first)
    yield from _both(root + "time_embed.2", time, time)
    if family in LABELS:
        yield from _both(root + "label_emb.0.0", time, LABELS[family])
        yield from _both(root + "label_emb.0.2", time, time)
    yield from _both(root + "input_blocks.0.0", first, 4, 3, 3)
    yield from _resnet(root + "input_blocks.1.0", first, first, time)
    yield from _attention(root + "input_blocks.1.1", first, context, linear=linear)
    yield from _both(root + "input_blocks.2.0.op", first, first, 3, 3)
    yield from _resnet(root + "input_blocks.3.0", first, second, time)
    yield from _attention(root + "input_blocks.3.1", second, context, linear=linear)
    yield from _resnet(root + "middle_block.0", second, second, time)
    yield from _attention(root + "middle_block.1", second, context, linear=linear)
    yield from _resnet(root + "middle_block.2", second, second, time)
    widths = ((second + second, second), (second + first, second), (second + first, first), (first + first, first))
    for number, (before, after) in enumerate(widths):
        yield from _resnet(f"{root}output_blocks.{number}.0", before, after, time)
        yield from _attention(f"{root}output_blocks.{number}.1", after, context, linear=linear)
    yield from _both(root + "output_blocks.1.2.conv", second, second, 3, 3)
    yield from _both(root + "out.0", first)
    yield from _both(root + "out.2", 4, first, 3, 3)


def _resnet(name: str, before: int, after: int, time: int) -> Iterator[tuple[str, Shape]]:
    yield from _both(name + ".in_layers.0", before)
    yield from _both(name + ".in_layers.2", after, before, 3, 3)
    yield from _both(name + ".emb_layers.1", after, time)
    yield from _both(name + ".out_layers.0", after)
    yield from _both(name + ".out_layers.3", after, after, 3, 3)
    if before != after:
        yield from _both(name + ".skip_connection", after, before, 1, 1)


def _attention(name: str, width: int, context: int, *, linear: bool) -> Iterator[tuple[str, Shape]]:
    block, kernel = name + ".transformer_blocks.0", () if linear else (1, 1)
    yield from _both(name + ".norm", width)
    yield from _both(name + ".proj_in", width, width, *kernel)
    yield from _both(name + ".proj_out", width, width, *kernel)
    for part, source in (("attn1", width), ("attn2", context)):
        yield f"{block}.{part}.to_q.weight", (width, width)
        yield f"{block}.{part}.to_k.weight", (width, source)
        yield f"{block}.{part}.to_v.weight", (width, source)
        yield from _both(f"{block}.{part}.to_out.0", width, width)
    yield from _both(block + ".ff.net.0.proj", 8 * width, width)
    yield from _both(block + ".ff.net.2", width, 4 * width)
    for number in (1, 2, 3):
        yield from _both(f"{block}.norm{number}", width)


def _vae() -> Iterator[tuple[str, Shape]]:
    root = "first_stage_model."
    last = VAE_CHANNELS[-1]
    before = VAE_CHANNELS[0]
    yield from _both(root + "encoder.conv_in", before, 3, 3, 3)
    for level, after in enumerate(VAE_CHANNELS):
        yield from _vae_resnet(f"{root}encoder.down.{level}.block.0", before, after)
        if level < len(VAE_CHANNELS) - 1:
            yield from _both(f"{root}encoder.down.{level}.downsample.conv", after, after, 3, 3)
        before = after
    yield from _vae_middle(root + "encoder", last)
    yield from _both(root + "encoder.conv_out", 8, last, 3, 3)
    yield from _both(root + "quant_conv", 8, 8, 1, 1)
    yield from _both(root + "post_quant_conv", 4, 4, 1, 1)
    yield from _both(root + "decoder.conv_in", last, 4, 3, 3)
    for level, after in reversed(tuple(enumerate(VAE_CHANNELS))):
        for number in (0, 1):
            yield from _vae_resnet(f"{root}decoder.up.{level}.block.{number}", before if number == 0 else after, after)
        if level > 0:
            yield from _both(f"{root}decoder.up.{level}.upsample.conv", after, after, 3, 3)
        before = after
    yield from _vae_middle(root + "decoder", last)
    yield from _both(root + "decoder.conv_out", 3, before, 3, 3)


def _vae_middle(side: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _vae_resnet(side + ".mid.block_1", width, width)
    yield from _vae_resnet(side + ".mid.block_2", width, width)
    yield from _both(side + ".mid.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _both(f"{side}.mid.attn_1.{part}", width, width, 1, 1)
    yield from _both(side + ".norm_out", VAE_CHANNELS[0] if side.endswith("decoder") else width)


def _vae_resnet(name: str, before: int, after: int) -> Iterator[tuple[str, Shape]]:
    yield from _both(name + ".norm1", before)
    yield from _both(name + ".conv1", after, before, 3, 3)
    yield from _both(name + ".norm2", after)
    yield from _both(name + ".conv2", after, after, 3, 3)
    if before != after:
        yield from _both(name + ".nin_shortcut", after, before, 1, 1)


def _texts(family: str) -> Iterator[tuple[str, Shape]]:
    match family:
        case "sd2":
            yield from _open_clip("cond_stage_model.model.")
        case "sdxl":
            yield from _text(_FIRST + "transformer.text_model.")
            yield from _open_clip(_SECOND)
        case "refiner":
            yield from _open_clip(_FIRST + "model.")
        case _:
            yield from _text(_TEXT)


def _open_clip(root: str) -> Iterator[tuple[str, Shape]]:
    yield root + "token_embedding.weight", (49408, WIDTH)
    yield root + "positional_embedding", (77, WIDTH)
    yield root + "text_projection", (WIDTH, WIDTH)
    for layer in range(2):
        block = f"{root}transformer.resblocks.{layer}"
        yield block + ".attn.in_proj_weight", (3 * WIDTH, WIDTH)
        yield block + ".attn.in_proj_bias", (3 * WIDTH,)
        yield from _both(block + ".attn.out_proj", WIDTH, WIDTH)
        yield from _both(block + ".ln_1", WIDTH)
        yield from _both(block + ".ln_2", WIDTH)
        yield from _both(block + ".mlp.c_fc", 4 * WIDTH, WIDTH)
        yield from _both(block + ".mlp.c_proj", WIDTH, 4 * WIDTH)
    yield from _both(root + "ln_final", WIDTH)


def _text(root: str) -> Iterator[tuple[str, Shape]]:
    yield root + "embeddings.token_embedding.weight", (49408, WIDTH)
    yield root + "embeddings.position_embedding.weight", (77, WIDTH)
    for layer in range(2):
        block = f"{root}encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _both(f"{block}.self_attn.{part}", WIDTH, WIDTH)
        yield from _both(block + ".layer_norm1", WIDTH)
        yield from _both(block + ".layer_norm2", WIDTH)
        yield from _both(block + ".mlp.fc1", 4 * WIDTH, WIDTH)
        yield from _both(block + ".mlp.fc2", WIDTH, 4 * WIDTH)
    yield from _both(root + "final_layer_norm", WIDTH)
