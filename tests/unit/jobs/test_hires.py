"""Hires fix: what is asked in which order, what the passes share, and how the work in between is done."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.engine.job import Job
from darkroom.jobs.hires import cropped, stretched
from darkroom.jobs.latent_modes import LATENT_MODES
from darkroom.jobs.ops import Decode, Denoise, EncodeImage, EncodeText, EnlargeTile, Question, RestoreFace, Upscale
from darkroom.jobs.spec import Hires, JobSpec, Picture, Traits
from tests.unit.engine.fake_runner import FakeRunner, Outcome, draw, finish, make_loop, make_spec, start


def make_hires(upscaler: str = "Latent", **changes: object) -> Hires:
    hires = Hires(
        checkpoint="fake",
        size=(64, 48),
        upscaler=upscaler,
        steps=4,
        denoising_strength=0.6,
        sampler="Euler",
        scheduler="Automatic",
        prompt="a cat",
        negative_prompt="",
        eta=1.0,
    )
    return replace(hires, **changes)  # type: ignore[arg-type]


def two_passes(hires: Hires | None = None, *, seeds: Sequence[int] = (1,), sampler: str = "Euler") -> JobSpec:
    spec = make_spec(seeds=seeds, steps=3, sampler=sampler)
    return replace(spec, hires=hires or make_hires())


def run(spec: JobSpec) -> tuple[Outcome, list[Question]]:
    runner = FakeRunner()
    loop = make_loop(runner)
    [ended] = finish(loop, start(loop, spec))
    assert ended.state == "done", ended.error
    return ended, [op for ops in runner.batches for op in ops]


def kinds(ops: Sequence[Question]) -> list[type]:
    """The kinds of questions in order, repetitions left out."""
    found: list[type] = []
    for op in ops:
        if not found or found[-1] is not type(op):
            found.append(type(op))
    return found


def test_a_latent_mode_goes_from_sampling_to_sampling() -> None:
    ended, ops = run(two_passes())
    assert kinds(ops) == [EncodeText, Denoise, EncodeText, Denoise, Decode]
    assert [picture.shape for picture in ended.pictures] == [(48, 64, 3)]


@pytest.mark.parametrize(
    ("upscaler", "kept", "wanted"),
    [
        ("Latent", True, [EncodeText, Denoise, Decode, EncodeText, Denoise, Decode]),
        ("Lanczos", True, [EncodeText, Denoise, Decode, Upscale, EncodeImage, EncodeText, Denoise, Decode]),
        ("Latent", False, [EncodeText, Denoise, EncodeText, Denoise, Decode]),
    ],
)
def test_the_first_passs_picture_is_handed_over_where_it_is_wanted(
    upscaler: str, kept: bool, wanted: list[type]
) -> None:
    spec = two_passes(make_hires(upscaler, keeps_first=kept))
    loop = make_loop(runner := FakeRunner())
    job = start(loop, spec)
    finish(loop, job)
    assert kinds([op for ops in runner.batches for op in ops]) == wanted
    for done in job.last_event.pictures:
        sizes = [(suffix, picture.shape) for suffix, picture in done.asides]
        assert sizes == ([("-before-highres-fix", (32, 32, 3))] if kept else [])


def test_an_upscaler_works_on_the_finished_picture() -> None:
    ended, ops = run(two_passes(make_hires("Lanczos")))
    assert kinds(ops) == [EncodeText, Denoise, Decode, Upscale, EncodeImage, EncodeText, Denoise, Decode]
    [enlarging] = [op for op in ops if isinstance(op, Upscale)]
    assert (enlarging.upscaler, enlarging.size, enlarging.picture.shape) == ("Lanczos", (64, 48), (32, 32, 3))
    assert [picture.shape for picture in ended.pictures] == [(48, 64, 3)]


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_a_picture_that_stands_in_leaves_out_the_first_pass(upscaler: str) -> None:
    picture: Picture = np.full((40, 24, 3), 200, np.uint8)
    ended, ops = run(two_passes(make_hires(upscaler, picture=picture)))
    assert {op.rows[0].x.shape for op in ops if isinstance(op, Denoise)} == {(4, 6, 8)}
    assert [picture.shape for picture in ended.pictures] == [(48, 64, 3)]
    assert {op.part for op in ops if isinstance(op, Denoise)} == {0}


def test_every_step_of_the_second_pass_is_made() -> None:
    _, ops = run(two_passes(make_hires(steps=5, denoising_strength=0.3)))
    second = [op for op in ops if isinstance(op, Denoise) and op.part == 1]
    assert [(op.step, op.steps) for op in second] == [(step, 5) for step in range(5)]


def test_each_pass_has_its_own_model_and_prompt() -> None:
    _, ops = run(two_passes(make_hires("Lanczos", checkpoint="other", prompt="a dog")))
    asked = [(type(op), op.model.checkpoint) for op in ops if not isinstance(op, EnlargeTile | RestoreFace)]
    assert [name for kind, name in asked if kind is Decode] == ["fake", "other"]
    assert [name for kind, name in asked if kind is EncodeImage] == ["other"]
    texts = [op.texts[0] for op in ops if isinstance(op, EncodeText)]
    assert texts == ["a cat", "", "a dog", ""]


def test_each_pass_tells_sdxl_its_own_size_before_anything_is_cut_off() -> None:
    large = Traits(family="sdxl")
    _, ops = run(replace(two_passes(make_hires(traits=large, crop=(2, 1))), traits=large))
    told = [op.numbers for op in ops if isinstance(op, EncodeText)]
    assert told == [(32, 32, 0, 0, 32, 32)] * 2 + [(48, 64, 0, 0, 48, 64)] * 2


@pytest.mark.parametrize(("upscaler", "weight"), [("Latent", 1.0), ("Latent", 0.5), ("Lanczos", 1.0)])
def test_an_inpainting_checkpoint_sees_a_whole_mask_at_the_second_pass_s_size(upscaler: str, weight: float) -> None:
    hires = make_hires(upscaler, traits=Traits(conditioning="inpaint"), crop=(2, 1))
    _, ops = run(replace(two_passes(hires), mask_weight=weight))
    first, second = ([op for op in ops if isinstance(op, Denoise) and op.part == part] for part in (0, 1))
    assert {row.image for op in first for row in op.rows} == {None}
    assert len(second) == hires.steps
    for row in (row for op in second for row in op.rows):
        assert row.image is not None
        assert row.image.shape == (5, 5, 6)
        assert row.x.shape == (4, 5, 6)
        assert torch.equal(row.image[0], torch.ones(5, 6))


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M SDE", "DDIM"])
@pytest.mark.parametrize("upscaler", ["Latent (bicubic)", "Nearest"])
def test_a_picture_of_a_batch_is_the_one_that_its_seed_gives_alone(sampler: str, upscaler: str) -> None:
    hires = make_hires(upscaler, sampler=sampler)
    together = draw(two_passes(hires, seeds=[1, 2, 3], sampler=sampler))
    alone = [draw(two_passes(hires, seeds=[seed], sampler=sampler))[0] for seed in (1, 2, 3)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_noise_of_the_second_pass_starts_anew_with_the_seed() -> None:
    drawn = draw(two_passes(make_hires(denoising_strength=1.0)))[0]
    assert not np.array_equal(drawn, draw(two_passes(make_hires(denoising_strength=1.0), seeds=[2]))[0])
    first_pass_does_not_matter = replace(two_passes(make_hires(denoising_strength=1.0)), steps=9)
    assert np.abs(drawn.astype(int) - draw(first_pass_does_not_matter)[0]).max() <= 32


def interrupted_after(cycles: int, spec: JobSpec) -> tuple[Outcome, int]:
    """How the job ends, and how many evaluations were made."""
    runner = FakeRunner()
    loop = make_loop(runner)
    job = start(loop, spec)
    for _ in range(cycles):
        loop.cycle()
    loop.interrupt(job)
    [ended] = finish(loop, job)
    assert not runner.open_programs
    return ended, len(runner.denoise_batches)


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_an_interrupt_in_the_first_pass_gives_its_picture_and_later_the_larger_one(upscaler: str) -> None:
    evaluations = set()
    questions = 15 if upscaler == "Lanczos" else 12
    for cycles in range(1, questions):
        ended, made = interrupted_after(cycles, two_passes(make_hires(upscaler)))
        assert ended.state == "interrupted"
        assert [picture.shape for picture in ended.pictures] == [(32, 32, 3) if made < 3 else (48, 64, 3)]
        evaluations.add(made)
    assert evaluations == set(range(8))


def test_an_interrupt_between_the_passes_gives_the_enlarged_picture_without_noise() -> None:
    hires = make_hires("Latent (nearest)", size=(64, 64))
    ended, made = interrupted_after(5, two_passes(hires))
    assert made == 3
    np.testing.assert_array_equal(ended.pictures[0], draw(make_spec(steps=3))[0].repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_progress_runs_evenly_through_both_passes(upscaler: str) -> None:
    loop = make_loop(FakeRunner())
    job = start(loop, replace(two_passes(make_hires(upscaler), seeds=[1, 2]), batch_size=1, n_iter=2))
    seen = [where(job)]
    while not job.ended:
        loop.cycle()
        seen.append(where(job))
    assert seen == sorted(seen)
    fractions = [fraction for _, _, _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    steps = {(iteration, part, step): fraction for iteration, part, step, fraction in seen[:-1]}
    expected = {(i, 0, s): i / 2 + s / 3 / 4 for i in (0, 1) for s in range(3)}
    expected |= {(i, 1, s): i / 2 + 1 / 4 + s / 4 / 4 for i in (0, 1) for s in range(4)}
    assert steps == pytest.approx(expected)


def where(job: Job) -> tuple[int, int, int, float]:
    return job.status.iteration, job.status.part, job.status.step, job.status.fraction


@given(
    crop=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    size=st.tuples(st.integers(11, 20), st.integers(11, 20)),
)
def test_a_crop_takes_as_much_from_either_side(crop: tuple[int, int], size: tuple[int, int]) -> None:
    width, height = size
    latent = torch.arange(height * width).view(1, height, width)
    kept = cropped(latent, crop)
    assert kept.shape == (1, height - crop[1], width - crop[0])
    assert int(kept[0, 0, 0]) == crop[1] // 2 * width + crop[0] // 2


@pytest.mark.parametrize("name", LATENT_MODES)
def test_a_latent_mode_brings_a_latent_to_an_eighth_of_the_size(name: str) -> None:
    flat = torch.full((4, 5, 6), 0.25)
    larger = stretched(flat, (83, 64), LATENT_MODES[name])
    torch.testing.assert_close(larger, torch.full((4, 8, 10), 0.25))


def test_the_latent_modes_differ() -> None:
    torch.manual_seed(0)
    latent = torch.randn(4, 6, 6)
    # Antialiasing shows where the latent shrinks; the two nearest ones differ where the factor is not whole.
    shrunk = {name: stretched(latent, (32, 32), mode) for name, mode in LATENT_MODES.items()}
    names = list(shrunk)
    same = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if torch.equal(shrunk[a], shrunk[b])]
    assert same == []
