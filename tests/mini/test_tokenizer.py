"""The shipped vocabulary is CLIP's."""

import json

import pytest

from darkroom.mini import tokenizer


def test_the_vocabulary_follows_from_the_merges() -> None:
    merges = (tokenizer.FOLDER / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    shipped = json.loads((tokenizer.FOLDER / "vocab.json").read_text(encoding="utf-8"))
    assert shipped == tokenizer.vocabulary(merges)
    assert len(shipped) == tokenizer.VOCABULARY


@pytest.mark.parametrize(
    ("caption", "ids"),
    [("a photo of an astronaut", [49406, 320, 1125, 539, 550, 18376, 49407]), ("", [49406, 49407])],
)
def test_captions_have_the_ids_that_clip_gives_them(caption: str, ids: list[int]) -> None:
    [row] = tokenizer.encode([caption])
    assert len(row) == tokenizer.LENGTH
    assert row[: len(ids)] == ids
    assert set(row[len(ids) :]) <= {49407}


def test_the_licence_of_the_vocabulary_is_shipped() -> None:
    notice = (tokenizer.FOLDER / "NOTICE").read_text(encoding="utf-8")
    assert "MIT License" in notice
    assert "OpenAI" in notice
