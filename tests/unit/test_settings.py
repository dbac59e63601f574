import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from darkroom.errors import BadRequest
from darkroom.settings import NO_EFFECT_YET, Options, OptionValues, Settings, parse_credentials


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().port == 7860
    Path("darkroom.toml").write_text('port = 1\nhost = "a"\nmax_steps = 11\n')
    monkeypatch.setenv("DARKROOM_PORT", "2")
    monkeypatch.setenv("DARKROOM_HOST", "b")
    settings = Settings.load({"port": 3, "host": None})
    assert (settings.port, settings.host, settings.max_steps, settings.max_width) == (3, "b", 11, 2048)


def test_every_setting_can_be_given_in_all_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {
        name: value + 1 if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in Settings().model_dump(mode="json").items()
        if value not in {None, ""}
    }
    values |= {
        "api_auth": "a:b",
        "cors_allow_origins": "http://x",
        "ckpt_dir": "/ckpt",
        "root_path": "/p",
        "exact": True,
    }
    assert set(values) == set(Settings.model_fields)
    Path("darkroom.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    from_file = Settings.load()
    Path("darkroom.toml").unlink()
    from_flags = Settings.load(values)
    for key, value in values.items():
        monkeypatch.setenv(f"DARKROOM_{key.upper()}", str(value))
    assert Settings.load() == from_flags == from_file
    assert from_file.port == 7861


def test_the_file_in_the_data_folder_comes_before_the_one_here(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    Path("darkroom.toml").write_text("port = 1\n")
    (tmp_path / "d" / "darkroom.toml").write_text("port = 2\n")
    other = tmp_path / "other.toml"
    other.write_text("port = 3\n")
    assert Settings.load().port == 1
    assert Settings.load({"data_dir": "d"}).port == 2
    assert Settings.load({"data_dir": "d"}, other).port == 3


def test_an_unknown_name_in_the_file_is_an_error() -> None:
    Path("darkroom.toml").write_text("prot = 1\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings.load()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_lists_in_the_file_are_joined() -> None:
    Path("darkroom.toml").write_text('cors_allow_origins = ["http://a", "http://b"]\napi_auth = ["a:b", "c:d"]\n')
    settings = Settings.load()
    assert settings.origins == ["http://a", "http://b"]
    assert settings.credentials == {"a": "b", "c": "d"}


@pytest.mark.parametrize("text", ["nocolon", "a:b:c", ":b", "a:b,", "a:b,,c:d"])
def test_passwords_in_another_form_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(api_auth=text)
    assert "exactly one colon" in caught.value.errors(include_input=False)[0]["msg"]
    with pytest.raises(ValueError, match="entry"):
        parse_credentials(text)


def test_passwords_are_not_printed() -> None:
    assert "secret" not in repr(Settings.load({"api_auth": "me:secret"}))


def test_checkpoints_lie_where_a1111_puts_them() -> None:
    assert Settings.load({"models_dir": "m"}).checkpoint_dir == Path("m/Stable-diffusion")
    assert Settings.load({"models_dir": "m", "ckpt_dir": "c"}).checkpoint_dir == Path("c")


def test_a_snapshot_never_changes() -> None:
    options = Options()
    before = options.snapshot()
    options.update({"jpeg_quality": 5})
    assert before.jpeg_quality == 80
    assert options.snapshot().jpeg_quality == 5


def test_options_survive_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.json"
    Options(file).update({"jpeg_quality": "70", "sd_model_checkpoint": "ä"})
    again = Options(file).snapshot()
    assert (again.jpeg_quality, again.sd_model_checkpoint) == (70, "ä")
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"jpeg_quality": "abc", "sd_vae": "x", "gone": 1}'])
def test_a_damaged_file_costs_only_what_is_damaged(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    values = Options(file).snapshot()
    assert values.jpeg_quality == 80
    assert values.sd_vae == ("x" if "sd_vae" in content else "Automatic")


def test_a_format_may_be_written_in_capitals() -> None:
    assert OptionValues().merged({"samples_format": "PNG"}).samples_format == "png"


def test_a_wrong_change_changes_nothing(tmp_path: Path) -> None:
    options = Options(tmp_path / "config.json")
    with pytest.raises(BadRequest, match="jpeg_quality"):
        options.update({"sd_vae": "x", "jpeg_quality": 101})
    assert options.snapshot() == OptionValues()
    assert not (tmp_path / "config.json").exists()


def test_options_without_effect_exist() -> None:
    assert set(OptionValues.model_fields) >= NO_EFFECT_YET


@given(
    name=st.sampled_from(sorted(OptionValues.model_fields)), value=st.none() | st.integers() | st.floats() | st.text()
)
def test_any_value_of_an_option_is_taken_or_refused_by_name(name: str, value: object) -> None:
    with contextlib.suppress(BadRequest):
        merged = OptionValues().merged({name: value})
        assert OptionValues().merged(merged.model_dump()) == merged
