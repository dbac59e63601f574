from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.images.filenames import MAX_FOLDERS, Facts, file_stem, fill, folders

NOW = datetime(2026, 11, 21, 14, 30, 5, tzinfo=UTC)

FACTS = Facts(
    picture=np.zeros((64, 96, 3), dtype=np.uint8),
    seed=12,
    seeds=(11, 12),
    place=1,
    batch_size=2,
    n_iter=1,
    prompt="A cat, on a: red sofa",
    negative_prompt="blurry",
    plain_prompt="A cat",
    styles=("None", "oil/paint"),
    steps=20,
    cfg_scale=7.5,
    sampler="DPM++ 2M",
    scheduler="SGM Uniform",
    model_name="small-a",
    model_hash="76fc168833",
    vae="mine.vae.safetensors",
    clip_skip=2,
    denoising=None,
    job_began=NOW,
    now=NOW,
)


def named(pattern: str, **facts: Any) -> str:
    return fill(pattern, replace(FACTS, **facts))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("", ""),
        ("plain", "plain"),
        ("[seed]", "12"),
        ("[SEED]-[Steps]", "12-20"),
        ("[seed_first] [seed_last]", "11 12"),
        ("[cfg]_[width]x[height]", "7.5_96x64"),
        ("[styles]", "oil_paint"),
        ("[sampler]|[scheduler]|[sampler_scheduler]", "DPM++ 2M|Sgm uniform|DPM++ 2M Sgm uniform"),
        ("[model_name] [model_hash]", "small-a 76fc168833"),
        ("[date]", "2026-11-21"),
        ("[datetime<%H-%M><UTC>]", "14-30"),
        ("[datetime<%H/%M><Europe/Paris>]", "15_30"),
        ("[datetime<100%%><UTC>]", "100%"),
        ("[datetime<%9999999Y %q><UTC>]", "%9999999Y %q"),
        ("[prompt]", "A_cat,_on_a__red_sofa"),
        ("[prompt_spaces]", "A cat, on a_ red sofa"),
        ("[prompt_words]", "A cat on"),
        ("[prompt_no_styles]", "A_cat"),
        ("[prompt_hash]", "f250ac14"),
        ("[prompt_hash<4>]", "f250"),
        ("[batch_number] of [batch_size], [generation_number]", "2 of 2, 2"),
        ("[hasprompt<CAT|dog><tree|bush>]", "catbush"),
        ("[clip_skip]", "2"),
        ("[vae_filename]", "mine"),
        ("[basename]", "img"),
        ("[none]", ""),
        ("a [nothing] b", "a [nothing] b"),
        ("[seed", "[seed"),
        ("[seed]]", "12]"),
        ("[[seed]]", "[12]"),
        ("[user]", "[user]"),
    ],
)
def test_tags_say_what_they_name(pattern: str, name: str) -> None:
    assert named(pattern, max_words=3) == name


def test_a_tag_that_does_not_apply_takes_the_text_before_it_along() -> None:
    assert named("[seed]-d[denoising]-n[batch_number].x", batch_size=1) == "12.x"
    assert named("[seed]-d[denoising]", denoising=0.5) == "12-d0.5"
    assert named("[seed] [seed_last]", batch_size=1) == "12"
    assert named("[generation_number]", batch_size=1) == ""
    assert named("[vae_filename]", vae="") == "NoneType"
    assert named("[styles]", styles=()) == "None"


def test_tags_inside_a_prompt_stay_text() -> None:
    assert named("[prompt]", prompt="[seed]") == "[seed]"


def test_a_hash_of_the_picture_is_that_of_its_pixels() -> None:
    assert len(named("[image_hash]")) == 64
    assert named("[image_hash<6>]") == named("[image_hash]")[:6]
    assert named("[image_hash]", picture=FACTS.picture + np.uint8(1)) != named("[image_hash]")


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("[date]", ["2026-11-21"]),
        ("", ["A cat on a red sofa"]),
        ("[model_name]/[date]", ["small-a", "2026-11-21"]),
        ("/etc/../../[seed]", ["etc", "12"]),
        ("..\\..\\x", ["x"]),
        (".ssh", ["ssh"]),
        ("a/[styles]/b", ["a", "oil_paint", "b"]),
        (" / . / ", []),
    ],
)
def test_folders_lead_inwards_only(pattern: str, wanted: list[str]) -> None:
    assert folders(pattern, FACTS) == wanted


@given(
    pattern=st.text(max_size=60)
    | st.from_regex(r"(\[(prompt|prompt_words|seed|styles|datetime<[^>]{0,9}>)\]|[./\\ ]){0,12}"),
    prompt=st.text(st.characters(codec="utf-8"), max_size=300),
    style=st.text(st.characters(codec="utf-8"), max_size=40),
)
def test_no_pattern_and_no_prompt_makes_a_name_that_leaves_its_folder(pattern: str, prompt: str, style: str) -> None:
    facts = replace(FACTS, prompt=prompt, plain_prompt=prompt, styles=(style,))
    parts = folders(pattern, facts)
    assert len(parts) <= MAX_FOLDERS
    root = Path("/data/outputs")
    path = root.joinpath(*parts, f"00000-{file_stem(pattern, facts)}.png")
    assert path.is_relative_to(root)
    assert ".." not in PurePosixPath(path).parts
    assert len(path.relative_to(root).parts) == len(parts) + 1
    for part in path.parts[1:]:
        assert len(part.encode()) <= 255
        assert not part.startswith(".")
        assert part.isprintable() or not any(ord(letter) < 32 for letter in part)


def test_a_long_prompt_is_cut_between_characters() -> None:
    stem = file_stem("[prompt][prompt][prompt]", replace(FACTS, prompt="猫" * 500))
    assert len(stem.encode()) <= 200
    assert set(stem) == {"猫"}
