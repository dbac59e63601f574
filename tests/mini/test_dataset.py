"""Scenes, captions and pictures come out the same under the same seed, and show what they name."""

from collections.abc import Sequence

import numpy as np
import pytest

from darkroom.mini import dataset
from darkroom.mini.dataset import BACKGROUNDS, WHITE, Glyph, Item, Scene

pytestmark = pytest.mark.skipif(not dataset.FONT.exists(), reason=f"the emoji font is not installed: {dataset.FONT}")


@pytest.fixture(scope="module")
def glyphs() -> Sequence[Glyph]:
    return dataset.load_glyphs(limit=400)


def captions(glyphs: Sequence[Glyph], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    scenes = [dataset.make_scene(rng, glyphs, index) for index in range(60)]
    return [dataset.caption_of(rng, glyphs, scene) for scene in scenes]


def test_captions_are_the_same_under_the_same_seed(glyphs: Sequence[Glyph]) -> None:
    assert captions(glyphs, 5) == captions(glyphs, 5)
    assert captions(glyphs, 5) != captions(glyphs, 6)


def test_captions_hold_nothing_that_a_prompt_would_read_as_syntax(glyphs: Sequence[Glyph]) -> None:
    names = [name for glyph in glyphs for name in glyph.names]
    assert names
    assert not [name for name in names if set(name) & set("()[]{}<>:_|")]


def test_names_are_cleaned_to_plain_words() -> None:
    assert dataset.clean_name(":A_button_(blood_type):") == "a button blood type"
    assert dataset.names_of("🐶")[0] == "dog face"
    assert "puppy dog" in dataset.names_of("🐶")
    assert dataset.names_of("🇩🇪")[0] == "flag of germany"


def test_two_objects_stand_side_by_side(glyphs: Sequence[Glyph]) -> None:
    scene = dataset.pair_scene(np.random.default_rng(1), 3, 8)
    white = Scene(items=scene.items, background=WHITE, background_name=None)
    picture = dataset.render(white, glyphs, 128)
    inked = picture.min(axis=-1) < 230
    assert inked[:, :60].any()
    assert inked[:, 68:].any()
    caption = dataset.caption_of(np.random.default_rng(2), glyphs, white)
    assert " and " in caption


def test_a_name_alone_always_means_the_same_picture(glyphs: Sequence[Glyph]) -> None:
    scenes = [dataset.make_scene(np.random.default_rng(seed), glyphs, 7, "single") for seed in range(3)]
    assert scenes[0] == scenes[1] == scenes[2]
    assert scenes[0].background == WHITE


def test_every_kind_of_scene_shows_its_object(glyphs: Sequence[Glyph]) -> None:
    rng = np.random.default_rng(3)
    for kind in dataset.KINDS:
        scene = dataset.make_scene(rng, glyphs, 7, kind)
        assert scene.items[0].glyph == 7
        assert (len(scene.items) == 2) == (kind == "pair")
        assert (scene.items[0].tint is not None) == (kind == "tinted")
        if kind == "coloured":
            assert scene.background_name is not None


def test_single_characters_are_common_and_joined_ones_are_not() -> None:
    assert all(map(dataset.is_common, ("🐶", "❤️", "🚀")))
    assert not any(map(dataset.is_common, ("🇩🇪", "👩‍🚀", "5️⃣")))


def test_a_named_background_fills_the_corners_and_is_named(glyphs: Sequence[Glyph]) -> None:
    item = Item(glyph=0, x=0.5, y=0.5, size=0.6)
    scene = Scene(items=(item,), background=BACKGROUNDS["blue"], background_name="blue")
    picture = dataset.render(scene, glyphs, 64)
    assert tuple(picture[0, 0]) == BACKGROUNDS["blue"]
    assert "on a blue background" in dataset.caption_of(np.random.default_rng(0), glyphs, scene)


def test_a_tint_changes_colour_and_keeps_the_outline(glyphs: Sequence[Glyph]) -> None:
    sprite = glyphs[0].sprite
    blue = dataset.tint_sprite(sprite, "blue")
    assert np.array_equal(blue[..., 3], sprite[..., 3])
    assert not np.array_equal(blue[..., :3], sprite[..., :3])


def test_glyphs_of_the_same_picture_count_as_one(glyphs: Sequence[Glyph]) -> None:
    for index, glyph in enumerate(glyphs):
        assert glyph.same_as <= index
        assert np.array_equal(glyphs[glyph.same_as].sprite, glyph.sprite)
