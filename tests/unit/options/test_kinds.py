import pytest

from darkroom.options.kinds import Option, Value, choice, colour, folder, name, number, switch, text, texts, whole

WHOLE, NUMBER, CHOICE = whole(3, "", 1, 50), number(1, "", 0, 10), choice("png", "", "png", "Full size")
ANY, CHOSEN, FOLDER = texts((), ""), texts((), "", "Tab", "Line Feed"), folder("", "")


@pytest.mark.parametrize(
    ("option", "sent", "read"),
    [
        (switch(True, ""), "false", False),
        (switch(True, ""), 0, False),
        (WHOLE, "7", 7),
        (WHOLE, 2.5, 2),
        (NUMBER, 3, 3.0),
        (NUMBER, "0.5", 0.5),
        (text("", ""), 5, "5"),
        (CHOICE, "PNG", "png"),
        (CHOICE, "full SIZE", "Full size"),
        (colour("", ""), "#FF8000", "#FF8000"),
        (name(""), None, None),
        (name(""), "x", "x"),
        (ANY, ["b", "a"], ("b", "a")),
        (CHOSEN, ["tab"], ("Tab",)),
        (FOLDER, "outputs/[date]", "outputs/[date]"),
    ],
)
def test_a_value_is_read_leniently_and_kept_in_its_type(option: Option, sent: object, read: Value) -> None:
    found = option.read(sent)
    assert found == read
    assert type(found) is type(read)
    assert option.means(sent, read)


@pytest.mark.parametrize(
    ("option", "sent"),
    [
        (switch(True, ""), "perhaps"),
        (WHOLE, 0),
        (WHOLE, 51),
        (WHOLE, None),
        (WHOLE, "abc"),
        (NUMBER, 10.1),
        (NUMBER, float("nan")),
        (NUMBER, []),
        (text("", ""), None),
        (text("", ""), "\ud800"),
        (CHOICE, "bmp"),
        (colour("", ""), "red"),
        (colour("", ""), "#12345"),
        (colour("", ""), "#123456\n"),
        (name(""), {}),
        (ANY, "a"),
        (ANY, [[]]),
        (CHOSEN, ["Tab", "Escape"]),
        (FOLDER, "/etc"),
        (FOLDER, "a/../../b"),
        (FOLDER, "..\\b"),
        (FOLDER, "C:b"),
        (FOLDER, "a\x00"),
    ],
)
def test_what_is_no_value_is_refused(option: Option, sent: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whoever knows the option's name words it
        option.read(sent)
    assert not option.means(sent, option.default)


def test_a_range_is_said_in_words() -> None:
    assert WHOLE.allowed == "a whole number from 1 to 50"
    assert whole(1, "").allowed == "a whole number"
    assert whole(1, "", 0).allowed == "a whole number from 0"
    assert CHOICE.allowed == "one of png, Full size"
