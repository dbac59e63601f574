"""Plans are driven by hand: every request that they yield is answered with a plain picture."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from PIL import Image

from darkroom.api.models import Generation, Img2Img, Txt2Img
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.captions import Ink
from darkroom.images.codecs import to_pixels
from darkroom.scripts import (
    alternative,
    loopback,
    outpainting_mk2,
    poor_outpainting,
    prompt_matrix,
    prompts_from_file,
    sd_upscale,
    xyz_plot,
)
from darkroom.scripts.plan import Ask, Made, Outcome, Plan, Result, Script, Setting
from darkroom.scripts.requests import base64_of, first_picture
from darkroom.scripts.signature import Lists, read

SETTING = Setting(
    lists=Lists(samplers=("Euler", "Euler a", "Heun"), checkpoints=("small-a.safetensors [76fc168833]", "sub/b.ckpt")),
    ink=Ink(),
)
IMG2IMG = replace(SETTING, lists=replace(SETTING.lists, tab="img2img"))


def drive(plan: Plan, answer: Callable[[Ask], Outcome]) -> tuple[list[Ask], Result]:
    """All requests of a plan, and its result."""
    asks: list[Ask] = []
    outcomes: Sequence[Outcome] | None = None
    while True:
        try:
            wanted = next(plan) if outcomes is None else plan.send(outcomes)
        except StopIteration as end:
            return asks, end.value
        asks += wanted
        outcomes = [answer(ask) for ask in wanted]


def plain(ask: Ask) -> Outcome:
    """A picture of the request's size whose colour is its seed."""
    request = ask.request
    made = [
        Made(
            picture=np.full((request.height or 8, request.width or 8, 3), (request.seed or 0) % 251, dtype=np.uint8),
            text=f"text {request.seed}",
            prompt=request.prompt or "",
            seed=request.seed or 0,
        )
        for _ in range(request.batch_size or 1)
    ]
    return Outcome(made=tuple(made), describe=lambda notes: f"{made[0].text} {dict(notes)}")


def run(
    script: Script, request: Generation, arguments: Sequence[object], answer: Callable[[Ask], Outcome] = plain
) -> tuple[list[Ask], Result]:
    setting = IMG2IMG if isinstance(request, Img2Img) else SETTING
    taken = read(script.arguments, arguments, setting.lists, field="script_args")
    return drive(script.plan(request, taken, setting), answer)


def small(**fields: object) -> Txt2Img:
    return Txt2Img.model_validate({"seed": 5, "width": 16, "height": 16, **fields})


def start(wide: int = 64, high: int = 64, **fields: object) -> Img2Img:
    picture = Image.linear_gradient("L").resize((wide, high)).convert("RGB")
    given = {"seed": 5, "width": 64, "height": 64, "init_images": [base64_of(picture)]}
    return Img2Img.model_validate({**given, **fields})


def stops_after(number: int) -> Callable[[Ask], Outcome]:
    asked = count()
    return lambda ask: plain(ask) if next(asked) < number else Outcome()


# Prompt matrix


def test_a_prompt_matrix_switches_every_part_on_and_off() -> None:
    asks, result = run(prompt_matrix.SCRIPT, small(prompt="a cat|red|at night"), [False, False, "positive", "comma", 0])
    prompts = [ask.request.prompt for ask in asks]
    assert prompts == ["a cat", "a cat, red", "a cat, at night", "a cat, red, at night"]
    assert {ask.request.seed for ask in asks} == {5}
    assert (len(result.pictures), result.first, len(result.texts)) == (5, 1, 5)


def test_a_prompt_matrix_can_stand_first_in_the_negative_prompt_with_seeds_of_its_own() -> None:
    request = small(negative_prompt="bad|ugly", prompt="x")
    asks, _ = run(prompt_matrix.SCRIPT, request, [True, True, "negative", "space", 0])
    assert [ask.request.negative_prompt for ask in asks] == ["bad", "ugly bad"]
    assert [ask.request.seed for ask in asks] == [5, 6]


def test_a_prompt_matrix_of_too_many_parts_is_refused_before_anything_is_made() -> None:
    with pytest.raises(LimitExceeded):
        run(prompt_matrix.SCRIPT, small(prompt="|".join("abcdefghijk")), [False, False, "positive", "comma", 0])


def test_an_interrupted_prompt_matrix_has_no_grid() -> None:
    request = small(prompt="a|b|c")
    _, result = run(prompt_matrix.SCRIPT, request, [False, False, "positive", "comma", 0], stops_after(2))
    assert (len(result.pictures), result.first) == (2, 0)


# Prompts from file


def test_lines_are_prompts_or_command_lines() -> None:
    lines = '--prompt "a dog" --steps 5 --negative_prompt bad thing\n\na bird\n--nonsense 3'
    asks, result = run(
        prompts_from_file.SCRIPT, small(prompt="x", negative_prompt="y", steps=4), [False, False, "start", lines]
    )
    assert [ask.request.prompt for ask in asks] == ["a dog x", "a bird x", "--nonsense 3 x"]
    assert [ask.request.negative_prompt for ask in asks] == ["bad thing y", "y", "y"]
    assert [ask.request.steps for ask in asks] == [5, 4, 4]
    assert len(result.texts) == len(result.pictures) == 3


def test_the_seed_grows_line_by_line_where_asked() -> None:
    asks, _ = run(prompts_from_file.SCRIPT, small(batch_size=2, n_iter=3), [True, False, "end", "a\nb\nc"])
    assert [ask.request.seed for ask in asks] == [5, 11, 17]


def test_one_random_seed_serves_all_lines_where_asked() -> None:
    asks, _ = run(prompts_from_file.SCRIPT, small(seed=-1), [False, True, "end", "a\nb"])
    assert asks[0].request.seed == asks[1].request.seed != -1


def test_a_line_names_a_sampler_by_any_of_its_names_and_never_a_folder() -> None:
    parsed = prompts_from_file.parse("--sampler_name k_euler_a --outpath_samples /etc --prompt x")
    assert parsed["sampler_name"] == "Euler a"
    request = prompts_from_file.apply(small(), parsed, at_start=True)
    assert "outpath_samples" not in request.model_dump()


# Loopback


def test_every_loop_starts_from_the_last_picture_with_the_next_seed() -> None:
    asks, result = run(loopback.SCRIPT, start(denoising_strength=0.8), [3, 0.4, "Linear", "None"])
    assert [ask.request.seed for ask in asks] == [5, 6, 7]
    strengths = [ask.request.denoising_strength for ask in asks]
    assert strengths == pytest.approx([0.8, 0.6, 0.4])
    first, second = asks[1].request, asks[2].request
    assert isinstance(first, Img2Img)
    assert isinstance(second, Img2Img)
    assert first.init_images != second.init_images
    assert len(result.pictures) == 4
    assert result.first == 0


def test_of_several_batches_only_the_last_pictures_are_kept() -> None:
    _, result = run(loopback.SCRIPT, start(n_iter=2), [3, 0.4, "Lazy", "None"])
    assert [made.seed for made in result.pictures[1:]] == [7, 10]


def test_an_interrupted_loopback_gives_what_there_is() -> None:
    asks, result = run(loopback.SCRIPT, start(), [9, 0.4, "Aggressive", "None"], stops_after(2))
    assert len(asks) == 3
    assert len(result.pictures) == 3


@pytest.mark.parametrize(("word", "describer"), [("CLIP", "clip"), ("DeepBooru", "deepdanbooru"), ("None", None)])
def test_the_picture_that_a_loop_starts_from_is_described_where_that_is_wanted(
    word: str, describer: str | None
) -> None:
    asks, _ = run(loopback.SCRIPT, start(), [3, 0.4, "Linear", word])
    for ask in asks:
        assert isinstance(ask.request, Img2Img)
        if describer is None:
            assert ask.described is None
            continue
        assert ask.described is not None
        name, picture = ask.described
        assert (name, picture.mode) == (describer, "RGB")
        assert base64_of(picture) == base64_of(first_picture(ask.request, 10**6, "#ffffff"))


# SD upscale and outpainting


def test_an_upscaled_picture_is_drawn_tile_by_tile() -> None:
    asks, result = run(sd_upscale.SCRIPT, start(), ["", 32, "lanczos", 1.5])
    assert len(asks) == 4
    assert [ask.request.seed for ask in asks] == [5, 6, 7, 8]
    assert result.pictures[0].picture.shape == (96, 96, 3)
    assert asks[0].notes == {"SD upscale overlap": 32, "SD upscale upscaler": "Lanczos"}


def test_tiles_go_together_as_the_batch_size_says() -> None:
    asks, _ = run(sd_upscale.SCRIPT, start(64, 64, batch_size=3), ["", 32, 0, 2.0])
    assert [ask.request.batch_size for ask in asks] == [1]  # without an upscaler the picture is one tile
    asks, _ = run(sd_upscale.SCRIPT, start(64, 64, batch_size=3), ["", 32, "Nearest", 1.5])
    assert [ask.request.batch_size for ask in asks] == [3, 1]


def test_tiles_that_overlap_wholly_are_refused() -> None:
    with pytest.raises(BadRequest):
        run(sd_upscale.SCRIPT, start(), ["", 64, "Lanczos", 2.0])


def test_outpainting_draws_only_tiles_with_something_missing() -> None:
    asks, result = run(poor_outpainting.SCRIPT, start(64, 64), [32, 4, "fill", ["left", "right"]])
    assert len(asks) == 2
    assert result.pictures[0].picture.shape == (64, 128, 3)
    inner = result.pictures[0].picture[:, 40:88]
    assert len(np.unique(inner)) > 10  # the picture is still there


def test_every_loop_has_the_colours_of_the_first_picture_for_a_target() -> None:
    request = start(64, 64)
    asks, _ = run(loopback.SCRIPT, request, [3, 0.5, "Linear", "None"])
    first = to_pixels(first_picture(request, 64 * 64, "#ffffff"))
    assert len(asks) == 3
    assert all(ask.colours is not None and np.array_equal(ask.colours, first) for ask in asks)


def test_outpainting_grows_one_side_after_the_other_at_the_border_alone() -> None:
    request = start(96, 64, width=64, height=64)
    asks, result = run(outpainting_mk2.SCRIPT, request, ["", 32, 4, ["left", "down"], 1.0, 0.05])
    assert [(ask.request.width, ask.request.height) for ask in asks] == [(64, 64), (128, 64)]
    first = asks[0].request
    assert isinstance(first, Img2Img)
    assert (first.mask_blur_x, first.mask_blur_y, first.inpainting_fill) == (16, 0, 1)
    [grown] = result.pictures
    assert grown.picture.shape == (128, 128, 3)
    assert len(np.unique(grown.picture[:60, 70:])) > 10  # what was far from the border is still there


def test_an_interrupted_outpainting_gives_the_pictures_that_were_finished() -> None:
    arguments = ["", 32, 4, ["left", "right"], 1.0, 0.05]
    _, result = run(outpainting_mk2.SCRIPT, start(batch_size=2), arguments, stops_after(3))
    assert len(result.pictures) == 1


def test_the_alternative_test_looks_for_the_noise_under_the_original_prompt() -> None:
    arguments = ["", True, True, "a cat", "bad", True, 12, True, 1.5, 0.25, True]
    [ask], result = run(alternative.SCRIPT, start(prompt="a dog", steps=3, sampler_name="Heun"), arguments)
    request = ask.request
    assert (request.prompt, request.steps, request.sampler_name, request.denoising_strength) == (
        "a cat",
        12,
        "Euler",
        1,
    )
    assert ask.inversion is not None
    assert (ask.inversion.steps, ask.inversion.cfg_scale, ask.inversion.adjusted) == (12, 1.5, True)
    assert len(result.pictures) == 1
    [ask], _ = run(
        alternative.SCRIPT,
        start(prompt="a dog", steps=3),
        [*["", False, False, "a cat", "", False], 12, False, 1, 0, False],
    )
    assert (ask.request.prompt, ask.request.steps, ask.request.denoising_strength) == ("a dog", 3, 0.75)


# X/Y/Z plot

XYZ = [0, "", "", 0, "", "", 0, "", "", True, False, False, False, False, False, False, 0, False]


def xyz(**given: object) -> list[object]:
    names = ["x", "x_text", "x_picked", "y", "y_text", "y_picked", "z", "z_text", "z_picked"]
    names += ["legend", "cells", "sheets", "keep", "vary_x", "vary_y", "vary_z", "margin", "text"]
    return [given.get(name, value) for name, value in zip(names, XYZ, strict=True)]


def test_every_combination_of_two_axes_is_a_cell() -> None:
    asks, result = run(xyz_plot.SCRIPT, small(), xyz(x=4, x_text="4,5", y=6, y_text="5,7"))
    assert [(ask.request.steps, ask.request.cfg_scale) for ask in asks] == [(4, 5.0), (5, 5.0), (4, 7.0), (5, 7.0)]
    assert (len(result.pictures), len(result.texts), len(result.cells), result.first) == (1, 5, 4, 1)
    assert "'X Type': 'Steps'" in result.texts[0]
    assert "'Y Values': '5,7'" in result.texts[0]


def test_cells_and_grids_of_every_z_come_where_asked() -> None:
    given = xyz(x=4, x_text="4-6", z=6, z_text="1,2", cells=True, sheets=True)
    _, result = run(xyz_plot.SCRIPT, small(), given)
    assert len(result.pictures) == 1 + 2 + 6
    assert len(result.texts) == len(result.pictures)


def test_costly_axes_change_least_often() -> None:
    asks, result = run(xyz_plot.SCRIPT, small(), xyz(x=11, x_picked=["small-a", "sub/b.ckpt"], y=4, y_text="4,5"))
    names = [(ask.request.override_settings or {})["sd_model_checkpoint"] for ask in asks]
    assert names == ["small-a.safetensors [76fc168833]"] * 2 + ["sub/b.ckpt"] * 2
    assert [cell.seed for cell in result.cells] == [5] * 4


def test_seeds_are_drawn_once_and_may_vary_along_axes() -> None:
    asks, _ = run(xyz_plot.SCRIPT, small(), xyz(x=4, x_text="4,5,6", y=6, y_text="1,2", vary_x=True, vary_y=True))
    assert [ask.request.seed for ask in asks] == [5, 6, 7, 8, 9, 10]
    asks, _ = run(xyz_plot.SCRIPT, small(seed=-1), xyz(x=4, x_text="4,5"))
    assert asks[0].request.seed == asks[1].request.seed != -1
    asks, _ = run(xyz_plot.SCRIPT, small(seed=-1), xyz(x=1, x_text="-1,-1", keep=True))
    assert [ask.request.seed for ask in asks] == [-1, -1]


def test_a_cell_that_fails_is_empty_and_the_others_are_not() -> None:
    given = xyz(x=4, x_text="4,5,6", cells=True)
    _, result = run(xyz_plot.SCRIPT, small(), given, lambda ask: plain(ask) if ask.request.steps != 5 else Outcome())
    assert len(result.cells) == 2
    assert len(result.pictures) == 3


def test_a_prompt_is_searched_and_replaced() -> None:
    asks, _ = run(xyz_plot.SCRIPT, small(prompt="a cat", negative_prompt="no cat"), xyz(x=7, x_text="cat, dog"))
    assert [ask.request.prompt for ask in asks] == ["a cat", "a dog"]
    assert [ask.request.negative_prompt for ask in asks] == ["no cat", "no dog"]
    with pytest.raises(BadRequest, match="bird"):
        run(xyz_plot.SCRIPT, small(prompt="a cat"), xyz(x=7, x_text="bird,cat"))


def test_words_change_places_with_one_another() -> None:
    asks, _ = run(xyz_plot.SCRIPT, small(prompt="a red, small cat"), xyz(x=8, x_text="red, cat"))
    assert [ask.request.prompt for ask in asks] == ["a red, small cat", "a cat, small red"]


def test_an_unknown_choice_names_the_near_misses() -> None:
    with pytest.raises(BadRequest, match="Euler a"):
        run(xyz_plot.SCRIPT, small(), xyz(x=9, x_picked=["Eulr a"]))


def test_too_many_cells_are_refused() -> None:
    with pytest.raises(LimitExceeded):
        run(xyz_plot.SCRIPT, small(), xyz(x=1, x_text="1-100"))


def test_numbers_of_axes_are_those_of_their_tab() -> None:
    _, result = run(xyz_plot.SCRIPT, start(), xyz(x=5, x_text="3"))
    assert "CFG Scale" in result.texts[0]


# Limits


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (prompt_matrix.SCRIPT, [False, False, "positive", "comma", 10**9]),
        (xyz_plot.SCRIPT, xyz(margin=10**9)),
        (xyz_plot.SCRIPT, xyz(x=4, x_text="1-1000," * 5000)),
        (xyz_plot.SCRIPT, xyz(x=4, x_text="1" * 200_000)),
        (prompts_from_file.SCRIPT, [False, False, "start", "a\n" * 100]),
    ],
)
def test_what_would_take_too_much_is_refused(script: Script, arguments: list[object]) -> None:
    with pytest.raises(BadRequest):
        run(script, small(prompt="a|b"), arguments)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (loopback.SCRIPT, [10**9, 0.5, "Linear", "None"]),
        (loopback.SCRIPT, [0, 0.5, "Linear", "None"]),
        (sd_upscale.SCRIPT, ["", 32, "Lanczos", 1e6]),
        (sd_upscale.SCRIPT, ["", 32, "Lanczos", -4]),
        (sd_upscale.SCRIPT, ["", 60, "Lanczos", 30]),
        (poor_outpainting.SCRIPT, [10**9, 4, "fill", ["left"]]),
        (poor_outpainting.SCRIPT, [-5, 4, "fill", ["left"]]),
        (poor_outpainting.SCRIPT, [32, -4, "fill", ["left"]]),
        (outpainting_mk2.SCRIPT, ["", 10**9, 4, ["left"], 1, 0]),
        (outpainting_mk2.SCRIPT, ["", 32, 4, ["left"], 1e9, 0]),
        (alternative.SCRIPT, ["", True, True, "", "", True, 10**9, True, 1, 0, False]),
        (alternative.SCRIPT, ["", True, True, "", "", True, 10, True, 1, 5, False]),
    ],
)
def test_numbers_that_make_no_picture_are_refused(script: Script, arguments: list[object]) -> None:
    with pytest.raises(BadRequest):
        run(script, start(), arguments)
