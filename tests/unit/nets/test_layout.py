"""The places of weights in a single-file checkpoint, held against the tensor lists of the published models."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from darkroom.nets import layout, open_clip_layout
from darkroom.nets.architecture import conditioning_of, identify
from darkroom.nets.checkpoint import UNET, VAE, is_ignorable
from darkroom.nets.config import ModelConfig, read_config
from darkroom.nets.layout import Part
from darkroom.nets.libraries import CLIPTextConfig, CLIPTextModel
from darkroom.nets.open_clip import OpenClip
from darkroom.nets.unet import build_unet
from darkroom.nets.vae import build_vae

LISTS = Path(__file__).parents[4] / "shared" / "reference" / "state-dicts"
FAMILIES = {
    "sd1": "sd1",
    "sd1-inpaint": "sd1",
    "sd1-pix2pix": "sd1",
    "sd2-v": "sd2",
    "sd2-inpaint": "sd2",
    "sdxl-base": "sdxl",
    "sdxl-inpaint": "sdxl",
    "sdxl-refiner": "refiner",
}
CLIP = {"sd1": "cond_stage_model.transformer.text_model.", "sdxl": "conditioner.embedders.0.transformer.text_model."}
OPEN_CLIP = {
    "sd2": "cond_stage_model.model.",
    "sdxl": "conditioner.embedders.1.model.",
    "refiner": "conditioner.embedders.0.model.",
}

Shapes = dict[str, tuple[int, ...]]

pytestmark = pytest.mark.skipif(not LISTS.is_dir(), reason="the lists of published tensors are not here")
every_list = pytest.mark.parametrize("name", FAMILIES)


def published(name: str, prefix: str = "") -> Shapes:
    entries = json.loads(gzip.decompress((LISTS / f"{name}.json.gz").read_bytes()))
    return {key[len(prefix) :]: tuple(shape) for key, (shape, _) in entries.items() if key.startswith(prefix)}


def asked(module: nn.Module, source: Callable[[str], str | Part], prefix: str = "") -> Shapes:
    """The tensors that a module wants of a file. Stacked rows must be asked for as a whole, and each once."""
    found: Shapes = {}
    rows: dict[str, list[tuple[int, int]]] = {}
    for name, weight in module.state_dict().items():
        place = source(name)
        part = Part(place) if isinstance(place, str) else place
        found[prefix + part.key] = part.shape_in_file(tuple(weight.shape))
        rows.setdefault(part.key, []).extend(part.ranges)
        assert sum(stop - start for start, stop in part.ranges) in (0, len(weight))
    for key, ranges in rows.items():
        taken = sorted(row for start, stop in ranges for row in range(start, stop))
        assert taken == list(range(found[prefix + key][0]) if ranges else []), key
    return found


def elements(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {name: torch.Size(shape).numel() for name, shape in shapes.items()}


def unet(shapes: Shapes, config: ModelConfig) -> Shapes:
    sizes = layout.unet_sizes(shapes, config)
    return asked(build_unet(sizes), layout.unet_source(shapes, sizes["layers_per_block"]))


def clip(shapes: Shapes) -> Shapes:
    with torch.device("meta"):
        return asked(CLIPTextModel(CLIPTextConfig(**layout.clip_sizes(shapes))), lambda name: name)


def opened(shapes: Shapes, *, pooled: bool) -> Shapes:
    sizes: dict[str, Any] = open_clip_layout.sizes(shapes)
    with torch.device("meta"):
        module = OpenClip(sizes, shapes["text_projection"][1] if pooled else None)
    return asked(module, open_clip_layout.source("", sizes["hidden_size"]))


@every_list
def test_every_tensor_has_its_place_and_none_is_left_over(name: str) -> None:
    shapes, family = published(name), FAMILIES[name]
    config = read_config(None, family)
    found = {UNET + key: shape for key, shape in unet(published(name, UNET), config).items()}
    sizes = layout.vae_sizes(published(name, VAE), config)
    source = layout.vae_source(len(sizes["block_out_channels"]))
    found |= asked(build_vae(sizes), source, VAE)
    if family in CLIP:
        found |= {CLIP[family] + key: shape for key, shape in clip(published(name, CLIP[family])).items()}
    if family in OPEN_CLIP:
        prefix = OPEN_CLIP[family]
        text = opened(published(name, prefix), pooled=family != "sd2")
        found |= {prefix + key: shape for key, shape in text.items()}
    assert elements(found) == elements({key: shape for key, shape in shapes.items() if key in found})
    left = [key for key in shapes if key not in found and not is_ignorable(key)]
    assert not left


@every_list
def test_each_architecture_is_told_by_its_tensors(name: str) -> None:
    assert identify(published(name)) == FAMILIES[name]


@every_list
def test_what_a_unet_sees_beside_the_latent_is_told_by_its_tensors(name: str) -> None:
    kinds = {"inpaint": "inpaint", "pix2pix": "edit"}
    assert conditioning_of(published(name)) == kinds.get(name.rpartition("-")[2], "none")


@pytest.mark.parametrize(
    ("name", "heads", "depths"),
    [
        ("sd1", (8, 8, 8, 8), (1, 1, 1, 1)),
        ("sd2-v", (5, 10, 20, 20), (1, 1, 1, 1)),
        ("sdxl-base", (5, 10, 20), (10, 2, 10)),
        ("sdxl-refiner", (6, 12, 24, 24), (4, 4, 4, 4)),
    ],
)
def test_heads_and_depths_are_those_of_the_published_network(
    name: str, heads: tuple[int, ...], depths: tuple[int, ...]
) -> None:
    sizes = layout.unet_sizes(published(name, UNET), read_config(None, FAMILIES[name]))
    assert sizes["attention_head_dim"] == heads
    assert sizes["transformer_layers_per_block"] == depths, "a level without attention has that of the middle"


def pruned(shapes: Shapes) -> Shapes:
    """SSD-1B: base SDXL without its middle attention, and with fewer blocks in others; Gupta et al. 2024,
    arXiv:2401.02677.
    """
    gone = ["middle_block.1.", "middle_block.2."]
    gone += [f"{side}.1.transformer_blocks.{i}." for side in ("input_blocks.7", "input_blocks.8") for i in range(4, 10)]
    gone += [f"output_blocks.{k}.1.transformer_blocks.{i}." for k in (0, 1) for i in range(4, 10)]
    gone += [f"output_blocks.{k}.1.transformer_blocks.1." for k in (4, 5)]
    return {name: shape for name, shape in shapes.items() if not name.startswith(tuple(gone))}


def test_every_weight_of_the_pruned_unet_has_its_place() -> None:
    shapes = pruned(published("sdxl-base", UNET))
    assert unet(shapes, read_config(None, "sdxl")) == shapes
