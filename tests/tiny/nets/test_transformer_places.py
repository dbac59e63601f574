"""Adapters for Stable Diffusion 3 and FLUX.1: every way of naming their layers leads to the same weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from darkroom.nets.adapters import read_adapter
from darkroom.nets.flux_layout import flux_source
from darkroom.nets.layout import Source
from darkroom.nets.merging import Merging, Share
from darkroom.nets.sd3_layout import sd3_source
from darkroom.nets.transformer_places import denoiser_places, t5_places
from tests.tiny.flow_checkpoints import denoiser_in_file, tiny_flux, tiny_sd3

RANK, STRENGTH = 2, 0.7
SD3 = "transformer_blocks.1"
FLUX = "single_transformer_blocks.1"


def adapter(folder: Path, tensors: dict[str, Tensor]) -> Share:
    path = folder / "adapter.safetensors"
    save_file(tensors, path)
    return Share(key="adapter", file=read_adapter(path), strength=STRENGTH)


def pair(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, RANK, generator=generator), torch.randn(RANK, columns, generator=generator)


def merged(network: nn.Module, source: Source, share: Share) -> nn.Module:
    Merging(network, denoiser_places(network, source)).carry([share])
    return network


def sd3() -> tuple[nn.Module, Source]:
    network = tiny_sd3().transformer
    return network, sd3_source(network.config)


def flux() -> tuple[nn.Module, Source]:
    network = tiny_flux().transformer
    return network, flux_source(network.config)


@pytest.mark.parametrize(
    ("make", "layer", "key"),
    [
        (sd3, "joint_blocks.1.x_block.attn.qkv", "joint_blocks.1.x_block.attn.qkv.weight"),
        (sd3, "joint_blocks.0.context_block.mlp.fc1", "joint_blocks.0.context_block.mlp.fc1.weight"),
        (flux, "double_blocks.0.txt_attn.qkv", "double_blocks.0.txt_attn.qkv.weight"),
        (flux, "single_blocks.1.linear1", "single_blocks.1.linear1.weight"),
    ],
)
@pytest.mark.parametrize("naming", ["kohya", "original"])
def test_layers_of_the_original_change_as_one(
    tmp_path: Path, make: Callable[[], tuple[nn.Module, Source]], layer: str, key: str, naming: str
) -> None:
    network, source = make()
    before = denoiser_in_file(network)[key].clone()
    up, down = pair(*before.shape)
    if naming == "kohya":
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(1.0)}
        scale = 1 / RANK
    else:
        name = f"diffusion_model.{layer}"
        tensors = {f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}
        scale = 1.0
    merged(network, source, adapter(tmp_path, tensors))
    after = denoiser_in_file(network)[key]
    assert torch.allclose(after, before + STRENGTH * scale * up @ down, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (sd3, f"{SD3}.attn.to_k"),
        (sd3, f"{SD3}.attn.add_v_proj"),
        (sd3, f"{SD3}.ff.net.0.proj"),
        (flux, f"{FLUX}.attn.to_q"),
        (flux, f"{FLUX}.proj_mlp"),
        (flux, "transformer_blocks.0.attn.to_out.0"),
    ],
)
@pytest.mark.parametrize("prefix", ["transformer.", "lora_transformer_"])
def test_layers_of_diffusers_change_alone(
    tmp_path: Path, make: Callable[[], tuple[nn.Module, Source]], layer: str, prefix: str
) -> None:
    network, source = make()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    up, down = pair(*before[f"{layer}.weight"].shape)
    if prefix.endswith("."):
        tensors = {f"{prefix}{layer}.lora_B.weight": up, f"{prefix}{layer}.lora_A.weight": down}
    else:
        name = prefix + layer.replace(".", "_")
        tensors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    merged(network, source, adapter(tmp_path, tensors))
    after = network.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {f"{layer}.weight"}
    expected = before[f"{layer}.weight"] + STRENGTH * up @ down
    assert torch.allclose(after[f"{layer}.weight"], expected, atol=1e-5)


@pytest.mark.parametrize("make", [sd3, flux])
def test_every_layer_has_a_name_after_both(make: Callable[[], tuple[nn.Module, Source]]) -> None:
    network, source = make()
    places = denoiser_places(network, source)
    layers = {name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    assert {place for name, place in places.items() if name.startswith("transformer_")} == layers
    named = [place for name, place in places.items() if name.startswith("diffusion_model_")]
    after_original = {one for place in named for one in ((place,) if isinstance(place, str) else place)}
    # Halves of these two lie the other way round in the original's files.
    assert layers - after_original <= {"norm_out.linear", "transformer_blocks.2.norm1_context.linear"}


def test_t5_has_layers_too() -> None:
    places = t5_places(tiny_flux().t5, "t5.")
    assert places["lora_te3_encoder_block_0_layer_0_SelfAttention_q"] == "t5.encoder.block.0.layer.0.SelfAttention.q"
