"""Each language has every text of the pages and no other, and what is filled into a text is filled into its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.ui.words import ENGLISH, TRANSLATIONS, languages, read_words

ROOT = Path(__file__).parents[3]
TRANSLATED = [language for language in languages() if language != ENGLISH]


@pytest.fixture(scope="module")
def texts() -> frozenset[str]:
    command = [sys.executable, "-m", "tests.unit.ui.texts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return frozenset(json.loads(done.stdout))


def test_the_texts_are_found(texts: frozenset[str]) -> None:
    assert {"Generate", "Sampling steps", "Show request", "Save grids", "Draw legend"} <= texts
    assert len(texts) > 500


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_language_has_every_text(language: str, texts: frozenset[str]) -> None:
    assert sorted(texts - read_words(language).table.keys()) == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_language_has_no_text_that_nobody_says(language: str, texts: frozenset[str]) -> None:
    assert sorted(read_words(language).table.keys() - texts) == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_has_the_places_of_its_text(language: str) -> None:
    places = re.compile(r"\{\w+\}")
    wrong = {
        text: translated
        for text, translated in read_words(language).table.items()
        if sorted(set(places.findall(text))) != sorted(set(places.findall(translated))) or not translated.strip()
    }
    assert wrong == {}


@pytest.mark.parametrize("language", TRANSLATED)
def test_the_texts_of_a_language_are_in_order(language: str) -> None:
    table = json.loads((TRANSLATIONS / f"{language}.json").read_text(encoding="utf-8"))
    assert list(table) == sorted(table)


def test_chinese_is_complete() -> None:
    assert "zh" in TRANSLATED
