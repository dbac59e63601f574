"""The places of weights in a single-file checkpoint, held against the tensor list of Stable Diffusion 1.x itself."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from darkroom.nets import layout
from darkroom.nets.architecture import identify
from darkroom.nets.checkpoint import UNET, VAE
from darkroom.nets.config import ModelConfig
from darkroom.nets.libraries import CLIPTextConfig, CLIPTextModel
from darkroom.nets.unet import build_unet
from darkroom.nets.vae import build_vae

LISTS = Path(__file__).parents[4] / "shared" / "reference" / "state-dicts"
TEXT = "cond_stage_model.transformer.text_model."

pytestmark = pytest.mark.skipif(not LISTS.is_dir(), reason="the lists of published tensors are not here")


def published(name: str, prefix: str = "") -> dict[str, tuple[int, ...]]:
    entries = json.loads(gzip.decompress((LISTS / f"{name}.json.gz").read_bytes()))
    return {key[len(prefix) :]: tuple(shape) for key, (shape, _) in entries.items() if key.startswith(prefix)}


def elements(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    return {name: torch.Size(shape).numel() for name, shape in shapes.items()}


@pytest.mark.parametrize(("name", "channels"), [("sd1", 4), ("sd1-inpaint", 9), ("sd1-pix2pix", 8)])
def test_every_weight_of_the_unet_has_its_place(name: str, channels: int) -> None:
    shapes = published(name, UNET)
    sizes = layout.unet_sizes(shapes, ModelConfig())
    source = layout.unet_source(shapes, sizes["layers_per_block"])
    asked = {source(name): tuple(weight.shape) for name, weight in build_unet(sizes).state_dict().items()}
    assert asked == shapes
    assert sizes["in_channels"] == channels
    assert sizes["attention_head_dim"] == (8, 8, 8, 8)


def test_every_weight_of_the_autoencoder_has_its_place() -> None:
    shapes = {name: shape for name, shape in published("sd1", VAE).items() if not name.startswith("loss.")}
    sizes = layout.vae_sizes(shapes, ModelConfig())
    source = layout.vae_source(len(sizes["block_out_channels"]))
    asked = {source(name): tuple(weight.shape) for name, weight in build_vae(sizes).state_dict().items()}
    assert elements(asked) == elements(shapes)


def test_every_weight_of_the_text_encoder_has_its_place() -> None:
    shapes = {name: shape for name, shape in published("sd1", TEXT).items() if not name.endswith("position_ids")}
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**layout.clip_sizes(shapes)))
    assert {name: tuple(weight.shape) for name, weight in model.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd1", "sd1"),
        ("sd1-inpaint", "sd1"),
        ("sd1-pix2pix", "sd1"),
        ("sd2-v", "sd2"),
        ("sd2-inpaint", "sd2"),
        ("sdxl-base", "sdxl"),
        ("sdxl-inpaint", "sdxl"),
        ("sdxl-refiner", "refiner"),
    ],
)
def test_each_architecture_is_told_by_its_tensors(name: str, kind: str) -> None:
    assert identify(published(name)) == kind
