"""Training the embedded upscaler: its pictures, its file, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.mini import loop, renders, upscaler_stage
from darkroom.mini.dataset import load_glyphs
from darkroom.nets.upscalers.network import load_network

pytestmark = pytest.mark.skipif(not renders.LETTERING.is_dir(), reason=f"no fonts in {renders.LETTERING}")


@pytest.fixture(scope="module")
def supplies() -> renders.Supplies:
    return renders.Supplies(glyphs=load_glyphs(limit=20), fonts=renders.find_fonts())


@pytest.mark.parametrize("kind", renders.KINDS)
def test_a_seed_always_paints_the_same_picture(supplies: renders.Supplies, kind: renders.Kind) -> None:
    first, again, other = (renders.paint(np.random.default_rng(seed), supplies, 64, kind) for seed in (3, 3, 4))
    assert first.shape == (64, 64, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_pair_is_a_picture_and_its_half(supplies: renders.Supplies) -> None:
    large, small = renders.pair(np.random.default_rng(0), supplies, 64)
    assert (large.shape, small.shape) == ((64, 64, 3), (32, 32, 3))
    reduced = Image.fromarray(large).resize((32, 32), Image.Resampling.BOX)
    assert np.abs(np.asarray(reduced).astype(int) - small).mean() < 12


def test_no_glyph_is_learnt_and_judged_by() -> None:
    known, unknown = renders.held_out(load_glyphs(limit=60))
    assert len(known) > 4 * len(unknown) > 0
    assert not {glyph.same_as for glyph in known} & {glyph.same_as for glyph in unknown}


def test_a_short_training_learns_and_leaves_a_file_that_others_read(supplies: renders.Supplies, tmp_path: Path) -> None:
    plan = loop.Plan(
        name="upscaler", out=tmp_path, budget=loop.Budget(steps=12), peak_lr=1e-3, weight_decay=0.0, warmup_steps=2
    )
    path = tmp_path / "new.safetensors"
    network = upscaler_stage.train(supplies, plan, 2, path, resume=False)
    read = load_network(path, torch.device("cpu"), torch.float32)
    assert (read.architecture, read.scale) == ("Compact", 2)
    picture = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        difference = read.enlarge(picture).astype(int) - upscaler_stage.enlarged(network, picture)
    assert np.abs(difference).max() <= 1
    untrained = upscaler_stage.Compact()
    large, small = upscaler_stage.make_batch(supplies, 1, 0, 4)
    with torch.inference_mode():
        losses = [float(upscaler_stage.distance(one(small), large)) for one in (untrained, network)]
    assert losses[1] < losses[0]


def test_equal_pictures_are_as_near_as_can_be_and_noise_is_far() -> None:
    picture = np.full((8, 8, 3), 100, dtype=np.uint8)
    assert upscaler_stage.psnr(picture, picture) > 80
    assert upscaler_stage.psnr(picture, picture + 10) == pytest.approx(28.13, abs=0.01)
