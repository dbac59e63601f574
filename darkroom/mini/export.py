"""Writes the weights file: the three networks under latent diffusion's original names, in fp16, and the YAML beside it.

Knows both naming schemes. Knows nothing of how the networks were trained.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from darkroom.mini.loop import write_atomically
from darkroom.mini.networks import ldm_config
from darkroom.nets.libraries import AutoencoderKL, CLIPTextModel, UNet2DConditionModel

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "darkroom-mini.safetensors"
MAX_BYTES = 32 * 1024 * 1024

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."

Rename = Callable[[re.Match[str]], str]

RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def resnet_name(rest: str) -> str:
    """`norm1.weight` -> `in_layers.0.weight`."""
    part, kind = rest.rsplit(".", 1)
    return f"{RESNET_PARTS[part]}.{kind}"


def unet_name(name: str, residuals: int, attending: frozenset[int]) -> str:
    """One diffusers UNet name in the original scheme.

    `residuals` is the number of residual blocks on the way down at each level, `attending` the up blocks with
    attention.
    """
    for end, original in UNET_ENDS.items():
        if name.startswith(end):
            return original + name.removeprefix(end)
    if found := re.match(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.*)", name):
        level, kind, number, rest = int(found[1]), found[2], int(found[3]), found[4]
        first = 1 + level * (residuals + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + residuals}.0.op.{rest.removeprefix('conv.')}"
        tail = f"0.{resnet_name(rest)}" if kind == "resnets" else f"1.{rest}"
        return f"input_blocks.{first + number}.{tail}"
    if found := re.match(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.*)", name):
        level, kind, number, rest = int(found[1]), found[2], int(found[3]), found[4]
        first = level * (residuals + 1)
        if kind == "upsamplers":
            return f"output_blocks.{first + residuals}.{2 if level in attending else 1}.{rest}"
        tail = f"0.{resnet_name(rest)}" if kind == "resnets" else f"1.{rest}"
        return f"output_blocks.{first + number}.{tail}"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        if found[1] == "attentions":
            return f"middle_block.1.{found[3]}"
        return f"middle_block.{2 * int(found[2])}.{resnet_name(found[3])}"
    raise ValueError(f"{name}: no UNet tensor of this kind is known")


def ldm_unet(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The UNet's tensors under their original names."""
    residuals = unet.config["layers_per_block"]
    kinds = unet.config["up_block_types"]
    attending = frozenset(level for level, kind in enumerate(kinds) if "CrossAttn" in kind)
    return {UNET_PREFIX + unet_name(name, residuals, attending): t for name, t in unet.state_dict().items()}


def vae_name(name: str, levels: int) -> str:
    """One diffusers autoencoder name in the original scheme, which counts the decoder's levels from the finest."""
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    if "mid.attn_1." in name:
        for part, original in VAE_ATTENTION.items():
            name = name.replace(f"attn_1.{part}.", f"attn_1.{original}.")
    return name


def ldm_vae(vae: AutoencoderKL) -> dict[str, Tensor]:
    """The autoencoder's tensors under their original names; attention matrices become 1x1 convolutions."""
    levels = len(vae.config["block_out_channels"])
    renamed = {vae_name(name, levels): t for name, t in vae.state_dict().items()}
    matrices = {name for name, t in renamed.items() if ".attn_1." in name and t.dim() == 2}
    return {VAE_PREFIX + n: (t[:, :, None, None] if n in matrices else t) for n, t in renamed.items()}


def ldm_text(text: CLIPTextModel) -> dict[str, Tensor]:
    """The text transformer's tensors; transformers' names with the prefix that Stable Diffusion 1 has."""
    named = text.state_dict().items()
    return {TEXT_PREFIX + n.removeprefix("text_model."): t for n, t in named if not n.endswith("position_ids")}


def ldm_tensors(text: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderKL) -> dict[str, Tensor]:
    """All tensors of the single file, fp16."""
    everything = ldm_unet(unet) | ldm_vae(vae) | ldm_text(text)
    return {n: t.detach().cpu().to(torch.float16).contiguous().clone() for n, t in sorted(everything.items())}


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights that fp16 cannot hold."""
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"weights out of range for fp16: {', '.join(broken[:5])}")


def write_weights(
    text: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    path: Path = WEIGHTS,
    notes: Iterable[tuple[str, str]] = (),
) -> int:
    """Writes the safetensors file and the YAML beside it, both atomically; answers the file's size in bytes.

    Raises:
        ValueError: the file would be larger than 32 MiB, or a weight is not finite in fp16.
    """
    tensors = ldm_tensors(text, unet, vae)
    check_finite(tensors)
    size = 0

    def write(part: Path) -> None:
        nonlocal size
        save_file(tensors, part, metadata={"format": "pt", **dict(notes)})
        part.chmod(0o644)
        size = part.stat().st_size
        if size > MAX_BYTES:
            part.unlink()
            raise ValueError(f"{path.name} would have {size} bytes; at most {MAX_BYTES} are allowed")

    heading = (
        "# The embedded model, in the form of Stable Diffusion's v1-inference.yaml. Written by darkroom.mini.export.\n"
    )
    config = heading + yaml.safe_dump(ldm_config(), sort_keys=False)
    write_atomically(path, write)
    write_atomically(path.with_suffix(".yaml"), lambda part: part.write_text(config))
    return size
