from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.prompt.styles import Style, apply, extract, load, merge, read, save, write

OIL = Style(name="oil", prompt="oil painting of {prompt}, thick strokes", negative_prompt="ugly")
SHARP = Style(name="sharp", prompt="4k, sharp", negative_prompt="")
NEGATIVE_ONLY = Style(name="negative", prompt="", negative_prompt="watermark, text")

FILE = 'name,prompt,negative_prompt\noil, oil painting of {prompt},ugly\n#hidden,a,b\n\nsharp,"4k, sharp",\nshort\n'

words = st.text("abc XY,(:0", max_size=12)
style_texts = st.one_of(words, st.builds("{}{}{}".format, words, st.just("{prompt}"), words))
names = st.text("abcd", min_size=1, max_size=3)


def test_a_file_has_a_style_per_row() -> None:
    assert read(FILE) == [
        Style(name="oil", prompt="oil painting of {prompt}", negative_prompt="ugly"),
        Style(name="sharp", prompt="4k, sharp", negative_prompt=""),
        Style(name="short", prompt="", negative_prompt=""),
    ]


def test_an_old_file_calls_the_prompt_text() -> None:
    assert read("name,text\noil,oil painting") == [Style(name="oil", prompt="oil painting", negative_prompt="")]


@given(st.lists(st.builds(Style, name=names, prompt=style_texts, negative_prompt=words)))
def test_what_was_written_is_read_again(styles: list[Style]) -> None:
    read_again = read(write(styles))
    assert [style.name for style in read_again] == [style.name for style in styles]
    # A1111: blanks after a comma are no part of a text.
    assert [(style.prompt or "").lstrip(" ") for style in read_again] == [
        (style.prompt or "").lstrip(" ") for style in styles
    ]


@given(st.text())
def test_any_text_is_a_file_of_styles(text: str) -> None:
    assert all(style.name for style in read(text))


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text(FILE, encoding="utf-8-sig")
    assert [style.name for style in load([path])] == ["oil", "sharp", "short"]


def test_several_files_get_headings(tmp_path: Path) -> None:
    for stem, name in (("a", "one"), ("b", "two")):
        (tmp_path / f"{stem}.csv").write_text(f"name,prompt,negative_prompt\n{name},x,y\n")
    found = load([tmp_path / "?.csv", tmp_path / "a.csv"])
    assert [style.name for style in found] == [" A ".center(40, "-"), "one", " B ".center(40, "-"), "two"]
    assert (found[0].prompt, found[0].negative_prompt) == (None, None)


def test_a_missing_or_unreadable_file_has_no_styles(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"name,prompt\n\xff\xfe,x")
    assert load([tmp_path / "none.csv"]) == ()
    assert load([tmp_path / "bytes.csv"]) == ()


def test_a_name_that_comes_twice_keeps_its_place_and_gets_its_last_texts(tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text("name,prompt\na,1\nb,2\na,3\n")
    assert [(style.name, style.prompt) for style in load([path])] == [("a", "3"), ("b", "2")]


def test_saving_keeps_the_old_file_beside_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    save(path, [OIL])
    save(path, [SHARP, Style(name="-- heading --", prompt=None, negative_prompt=None)])
    assert load([path]) == (SHARP,)
    assert load([tmp_path / "styles.csv.bak"]) == (OIL,)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["styles.csv", "styles.csv.bak"]


@pytest.mark.parametrize(
    ("style", "prompt", "merged"),
    [
        ("oil of {prompt}, thick", "a cat ", "oil of a cat , thick"),
        ("{prompt} and {prompt}", "x", "x and x"),
        (" 4k ", " a cat ", "a cat, 4k"),
        ("4k", " ", "4k"),
        ("", " a cat ", "a cat"),
    ],
)
def test_a_style_is_put_around_or_behind_a_prompt(style: str, prompt: str, merged: str) -> None:
    assert merge(style, prompt) == merged


def test_styles_are_merged_one_after_the_other() -> None:
    assert apply("a cat", [OIL.prompt, SHARP.prompt, None]) == "oil painting of a cat, thick strokes, 4k, sharp"


@given(
    st.text("abc d", min_size=1, max_size=10).map(str.strip).filter(bool), st.permutations([OIL, SHARP, NEGATIVE_ONLY])
)
def test_styles_that_were_merged_are_found_again(prompt: str, chosen: list[Style]) -> None:
    whole = apply(prompt, [style.prompt for style in chosen])
    negative = apply("dog", [style.negative_prompt for style in chosen])
    found, rest, negative_rest = extract([OIL, SHARP, NEGATIVE_ONLY], whole, negative)
    assert sorted(found) == ["negative", "oil", "sharp"]
    assert (rest, negative_rest) == (prompt, "dog")


def test_a_style_must_fit_both_prompts_and_is_used_once() -> None:
    assert extract([OIL], "oil painting of a cat, thick strokes", "fine") == (
        [],
        "oil painting of a cat, thick strokes",
        "fine",
    )
    assert extract([SHARP], "a cat, 4k, sharp, 4k, sharp", "") == (["sharp"], "a cat, 4k, sharp", "")


def test_a_style_without_texts_is_never_found() -> None:
    assert extract([Style(name="empty"), Style(name="heading", prompt=None, negative_prompt=None)], "a", "b") == (
        [],
        "a",
        "b",
    )


@given(st.lists(st.builds(Style, name=names, prompt=style_texts, negative_prompt=words), max_size=4), words, words)
def test_looking_for_styles_ends_whatever_they_are(styles: list[Style], prompt: str, negative: str) -> None:
    found, *_ = extract(styles, prompt, negative)
    assert len(found) <= len(styles)
