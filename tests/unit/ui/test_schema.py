import gradio as gr
import pytest

from darkroom.api.models import Extras, Img2Img, Txt2Img
from darkroom.ui.schema import control, describe
from darkroom.ui.words import Words

WORDS = Words(language="xx", table={"Sampling steps": "Schritte"})


def test_a_control_says_what_its_field_says() -> None:
    made = control(Txt2Img, "steps", page="txt2img", words=WORDS, value=20)
    assert isinstance(made, gr.Slider)
    assert (made.label, made.value, made.elem_id) == ("Schritte", 20, "txt2img-steps")
    assert (made.minimum, made.maximum, made.step) == (1, 150, 1)
    assert made.info == Txt2Img.model_fields["steps"].description


@pytest.mark.parametrize(
    ("field", "kind"),
    [("prompt", gr.Textbox), ("tiling", gr.Checkbox), ("seed", gr.Number), ("cfg_scale", gr.Slider)],
)
def test_the_kind_of_control_is_that_of_the_field(field: str, kind: type) -> None:
    assert type(control(Txt2Img, field, page="p", words=Words())) is kind


def test_choices_make_a_list() -> None:
    made = control(Txt2Img, "sampler_name", page="p", words=Words(), choices=["Euler", "Heun"], value="Heun")
    assert isinstance(made, gr.Dropdown)
    assert [name for name, _ in made.choices] == ["Euler", "Heun"]


def test_what_a_page_says_wins_over_the_field() -> None:
    made = control(Txt2Img, "width", page="p", words=Words(), maximum=1024, label="Breadth", value=64)
    assert isinstance(made, gr.Slider)
    assert (made.maximum, made.label, made.value) == (1024, "Breadth", 64)


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(KeyError):
        describe(Txt2Img, "stepz")


@pytest.mark.parametrize("model", [Txt2Img, Img2Img, Extras])
def test_every_range_holds_its_fields_default(model: type[Txt2Img | Img2Img | Extras]) -> None:
    ranged = [shown for name in model.model_fields if (shown := describe(model, name)).low is not None]
    ranged = [shown for shown in ranged if shown.default is not None and shown.default != -1]
    assert ranged
    assert [one.name for one in ranged if not (one.low or 0) <= one.default <= (one.high or 0)] == []
