"""Stable Diffusion 2 and XL with its refiner through the whole engine, on tiny networks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from darkroom.engine.local import LocalEngine
from darkroom.errors import BadRequest
from darkroom.jobs.spec import Family, GuidanceOptions, Hires, InitImage, JobSpec, Picture, Refiner, SdxlOptions, Traits
from darkroom.settings import Settings
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.test_engine import draw, make_settings, picture, tiny_spec

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl", "refiner")
LONG = "a cat BREAK a dog BREAK a tree"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("families")
    for seed, family in enumerate(FAMILIES, start=3):
        scale = 0.13025 if family in ("sdxl", "refiner") else 0.18215
        prediction = "v" if family == "sd2" else "eps"
        write_tiny_checkpoint(folder / "models", family, seed, scale=scale, prediction=prediction, family=family)
    write_tiny_checkpoint(folder / "models", "painting", 5, scale=0.13025, channels=9, family="sdxl")
    return make_settings(folder)


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[LocalEngine]:
    engine = LocalEngine(settings)
    yield engine
    engine.close()


def of(engine: LocalEngine, name: str, **changes: Any) -> JobSpec:
    """A job of a checkpoint, which knows its traits as a request's would."""
    return replace(tiny_spec(**changes), checkpoint=f"{name}.safetensors", traits=traits(engine, name))


def traits(engine: LocalEngine, name: str) -> Traits:
    return next(info.traits for info in engine.checkpoints() if info.key == f"{name}.safetensors")


def refined(engine: LocalEngine, **changes: Any) -> JobSpec:
    refiner = Refiner(checkpoint="refiner.safetensors", traits=traits(engine, "refiner"), switch_at=0.5)
    return replace(of(engine, "sdxl", **changes), refiner=refiner)


def drawn(engine: LocalEngine, *specs: JobSpec) -> list[Picture]:
    return [picture(event).astype(int) for event in draw(engine, *specs)]


def test_families_are_told_by_their_weights(engine: LocalEngine) -> None:
    assert [traits(engine, name).family for name in FAMILIES] == [*FAMILIES]


def test_pictures_of_all_families_do_not_depend_on_their_company(engine: LocalEngine) -> None:
    hires = Hires(
        checkpoint="sdxl.safetensors",
        traits=traits(engine, "sdxl"),
        size=(96, 80),
        upscaler="Lanczos",
        steps=2,
        denoising_strength=0.6,
        sampler="Euler",
        scheduler="Automatic",
        prompt="a dog",
        negative_prompt="",
        eta=1.0,
    )
    start = InitImage(pictures=(np.full((64, 64, 3), 90, np.uint8),), denoising_strength=0.6)
    specs = [
        *(of(engine, family) for family in FAMILIES),
        of(engine, "sdxl", prompt=LONG),
        of(engine, "sdxl", prompt=f"{LONG} AND a boat", guidance=GuidanceOptions(pad=True)),
        replace(of(engine, "sdxl"), width=96),
        replace(of(engine, "sd2"), hires=hires),
        replace(of(engine, "refiner"), kind="img2img", init=start),
        refined(engine, prompt=LONG, sampler="DPM++ 2M"),
        of(engine, "painting"),
    ]
    alone = [drawn(engine, spec)[0] for spec in specs]
    for one, other in zip(alone, drawn(engine, *specs), strict=True):
        assert np.abs(one - other).max() <= 1
        assert one.std() > 1, "the picture is not blank"


@pytest.mark.parametrize(
    ("name", "options", "counts"),
    [
        ("sdxl", SdxlOptions(crop_top=64), True),
        ("sdxl", SdxlOptions(crop_left=64), True),
        ("sdxl", SdxlOptions(high_score=1.0), False),
        ("sdxl", SdxlOptions(clip_l_skip=True), True),
        ("refiner", SdxlOptions(crop_left=64), True),
        ("refiner", SdxlOptions(high_score=1.0), True),
        ("refiner", SdxlOptions(low_score=9.0), True),
        ("refiner", SdxlOptions(clip_l_skip=True), False),
        ("sd2", SdxlOptions(crop_top=64, high_score=1.0, clip_l_skip=True), False),
    ],
)
def test_a_network_minds_what_it_is_told(engine: LocalEngine, name: str, options: SdxlOptions, counts: bool) -> None:
    plain = of(engine, name)
    one, other = (drawn(engine, spec)[0] for spec in (plain, replace(plain, sdxl=options)))
    assert (one != other).any() == counts


@pytest.mark.parametrize(("name", "differ"), [("sdxl", True), ("refiner", True), ("sd2", False)])
def test_no_negative_prompt_is_not_a_blank_one_to_sdxl(engine: LocalEngine, name: str, differ: bool) -> None:
    empty, blank = (drawn(engine, replace(of(engine, name), negative_prompt=text))[0] for text in ("", " "))
    assert (empty != blank).any() == differ


def test_the_refiner_decodes_what_it_has_refined(engine: LocalEngine) -> None:
    spec = refined(engine)
    assert spec.refiner is not None
    base, late, at_once, alone = drawn(
        engine,
        of(engine, "sdxl"),
        replace(spec, refiner=replace(spec.refiner, switch_at=1.1)),
        replace(spec, refiner=replace(spec.refiner, switch_at=None)),
        of(engine, "refiner"),
    )
    # Kernels are chosen by batch size, so the last bit of a pixel may differ.
    assert np.abs(base - late).max() <= 1
    assert np.abs(at_once - alone).max() <= 1
    assert np.abs(base - alone).max() > 1


def test_the_cheap_decoder_paints_a_pixel_for_every_latent_one(engine: LocalEngine) -> None:
    [event] = draw(engine, of(engine, "sdxl", decoder="Approx cheap"))
    assert picture(event).shape == (8, 8, 3)
    assert ("VAE Decoder", "Approx cheap") in event.pictures[0].notes


def test_a_missing_decoder_is_named_with_its_place(engine: LocalEngine) -> None:
    with pytest.raises(BadRequest, match=r"taesdxl_decoder.*VAE-taesd"):
        draw(engine, of(engine, "sdxl", decoder="TAESD"))
