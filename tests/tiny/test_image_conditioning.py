"""Checkpoints that see something beside the latent, from the file to the picture."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.engine.client import result
from darkroom.engine.local import LocalEngine
from darkroom.errors import BadRequest
from darkroom.jobs.spec import Conditioning, InitImage, JobSpec, Picture, SoftInpainting, Traits
from darkroom.nets.architecture import conditioning_of
from darkroom.nets.inspection import find_shapes
from darkroom.nets.store import load
from darkroom.settings import Settings
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.unit.engine.fake_runner import make_spec

KINDS: list[tuple[int, Conditioning]] = [(4, "none"), (5, "depth"), (8, "edit"), (9, "inpaint")]
CPU = torch.device("cpu")

Draw = Callable[[JobSpec], Picture]


def photo(seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def spec(conditioning: Conditioning, init: InitImage | None = None, **changes: object) -> JobSpec:
    made = make_spec("a cat", size=64, steps=3)
    kind = "img2img" if init else "txt2img"
    traits = Traits(conditioning=conditioning)
    fields = {"kind": kind, "checkpoint": "tiny.safetensors", "traits": traits, "init": init, **changes}
    return replace(made, **fields)  # type: ignore[arg-type]


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[Callable[[int], Draw]]:
    """Starts an engine over a tiny checkpoint with so many input channels."""
    engines: list[LocalEngine] = []

    def start(channels: int) -> Draw:
        write_tiny_checkpoint(tmp_path / "models", "tiny", seed=1, channels=channels)
        engine = LocalEngine(
            Settings(
                data_dir=tmp_path, models_dir=tmp_path, ckpt_dir=tmp_path / "models", device="cpu", precision="fp32"
            )
        )
        engines.append(engine)

        def draw(job: JobSpec) -> Picture:
            return asyncio.run(result(engine, engine.submit(job))).pictures[0].picture

        return draw

    yield start
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(("channels", "conditioning"), KINDS)
def test_a_checkpoint_tells_what_it_sees(tmp_path: Path, channels: int, conditioning: Conditioning) -> None:
    path = write_tiny_checkpoint(tmp_path, channels=channels)
    assert conditioning_of(find_shapes(path)) == conditioning
    network = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    assert network.image_channels == channels - 4


def test_a_file_that_is_no_checkpoint_sees_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for content in (b"", b"\xff" * 64, (9).to_bytes(8, "little") + b'{"a": [1]', (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        assert conditioning_of(find_shapes(path)) == "none"


def test_an_inpainting_checkpoint_draws_from_noise(drawing: Callable[[int], Draw]) -> None:
    assert drawing(9)(spec("inpaint")).std() > 1


def test_what_is_hidden_from_an_inpainting_checkpoint_does_not_matter(drawing: Callable[[int], Draw]) -> None:
    draw = drawing(9)
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, 32:] = 255
    pictures = [photo(), photo()]
    pictures[1][:, 32:] = 9
    latent_mask = (mask[::8, ::8] / 255).astype(np.float32)

    def drawn(picture: Picture, **changes: object) -> Picture:
        init = InitImage(
            pictures=(picture,), denoising_strength=1.0, latent_mask=latent_mask, fill="latent nothing", mask=mask
        )
        return draw(spec("inpaint", init, **changes))

    hidden = [drawn(picture).astype(int) for picture in pictures]
    seen = [drawn(picture, mask_weight=0.0).astype(int) for picture in pictures]
    # The encoder looks over the mask's edge, so something of the hidden part stays.
    assert np.abs(hidden[0] - hidden[1]).mean() < np.abs(seen[0] - seen[1]).mean()


def test_an_editing_checkpoint_follows_the_picture(drawing: Callable[[int], Draw]) -> None:
    draw = drawing(8)
    one, other = (draw(spec("edit", InitImage(pictures=(photo(i),), denoising_strength=1.0))) for i in (0, 1))
    assert not np.array_equal(one, other)


def test_a_depth_checkpoint_without_its_network_says_which_file_is_missing_where(
    drawing: Callable[[int], Draw], tmp_path: Path
) -> None:
    draw = drawing(5)
    with pytest.raises(BadRequest, match="dpt-hybrid-midas") as refusal:
        draw(spec("depth", InitImage(pictures=(photo(),), denoising_strength=0.5)))
    assert str(tmp_path / "midas") in str(refusal.value)


def test_a_checkpoint_that_is_shown_too_little_fails_the_job_alone(drawing: Callable[[int], Draw]) -> None:
    draw = drawing(9)
    with pytest.raises(BadRequest, match="5 channels beside the latent"):
        draw(spec("none"))
    assert draw(spec("inpaint")).std() > 1


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_soft_inpainting_brings_its_cover_along(drawing: Callable[[int], Draw], sampler: str) -> None:
    draw = drawing(4)
    mask = np.zeros((8, 8), dtype=np.float32)
    mask[:, 4:] = 0.7
    init = InitImage(pictures=(photo(),), denoising_strength=0.8, latent_mask=mask, soft=SoftInpainting())
    picture = draw(spec("none", init, sampler=sampler))
    assert picture.shape == (64, 64, 4)
    assert picture[..., 3].any()
