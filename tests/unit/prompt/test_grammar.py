"""Comments and extra-network tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.prompt.grammar import NetworkTag, cut_networks, strip_comments


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("a cat", "a cat"),
        ("a cat # orange", "a cat \n"),
        ("a\n# whole line\nb", "a\nb"),
        ("# first\na", "\na"),
        ("a # one\nb", "a \nb"),
        ("a #fff b", "a \n"),
        ("a\n#x\n#y\nb", "a\n\nb"),
    ],
)
def test_comments_go_to_the_end_of_their_line(text: str, stripped: str) -> None:
    assert strip_comments(text) == stripped


@given(st.text())
def test_nothing_of_a_comment_remains(text: str) -> None:
    assert "#" not in strip_comments(text)


def test_tags_are_cut_in_order_and_leave_nothing_in_their_place() -> None:
    text, tags = cut_networks("a <lora:x:0.5>cat<foo:a=b> <3 <empty:> <no word:1>")
    assert text == "a cat <3 <empty:> <no word:1>"
    assert tags == (NetworkTag("lora", ("x", "0.5")), NetworkTag("foo", ("a=b",)))


def test_items_with_one_equals_sign_are_named() -> None:
    _, [tag] = cut_networks("<lora:x:te=0:a=b=c:unet=1>")
    assert tag.positional == ("x", "a=b=c")
    assert tag.named == {"te": "0", "unet": "1"}
    assert tag.items == ("x", "te=0", "a=b=c", "unet=1")


@given(st.text("<:>ab=1 \n"))
def test_cutting_takes_nothing_but_tags(text: str) -> None:
    rest, tags = cut_networks(text)
    assert len(rest) + sum(len(tag.word) + len(":".join(tag.items)) + 3 for tag in tags) == len(text)
