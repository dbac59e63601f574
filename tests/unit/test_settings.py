import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from darkroom.settings import Settings, parse_credentials


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
        "cors_allow_origins_regex": "http://.*",
        "allowed_hosts": "x",
        "database_url": "sqlite:///x.db",
        "pictures_url": "s3://x",
        "otlp_endpoint": "http://x:4318",
        "signing_key": "x",
        "webhook_key": "x",
        "ckpt": "/ckpt.safetensors",
        "ckpt_dir": "/ckpt",
        "lora_dir": "/lora",
        "lyco_dir_backcompat": "/lycoris",
        "vae_dir": "/vae",
        "vae_path": "/vae.safetensors",
        "embeddings_dir": "/embeddings",
        "hypernetwork_dir": "/hypernetworks",
        "styles_file": "/styles.csv",
        "api_auth_file": "/credentials",
        "gradio_auth": "c:d",
        "gradio_auth_path": str(Path("users").absolute()),
        "admins": "a",
        "api_auth_hashed": f"key a sha256:{'0' * 64}",
        "codeformer_models_path": "/codeformer_models_path",
        "dat_models_path": "/dat_models_path",
        "esrgan_models_path": "/esrgan_models_path",
        "gfpgan_models_path": "/gfpgan_models_path",
        "realesrgan_models_path": "/realesrgan_models_path",
        "scunet_models_path": "/scunet_models_path",
        "swinir_models_path": "/swinir_models_path",
        "tls_keyfile": "/key",
        "tls_certfile": "/certificate",
        "subpath": "p",
        "without_extensions": "mine",
        "freeze_settings_in_sections": "saving-images,sd",
        "freeze_specific_settings": "jpeg_quality",
        "exact": True,
    }
    assert set(values) == set(Settings.model_fields)
    Path("users").write_text("e:f")
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


@pytest.mark.parametrize("text", ["nocolon", "a:b:c", ":b", "a:b,", "a:b,,c:d", "a:", "a:b,c:"])
def test_passwords_in_another_form_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(api_auth=text)
    assert "exactly one colon" in caught.value.errors(include_input=False)[0]["msg"]
    with pytest.raises(ValueError, match="entry"):
        parse_credentials(text)


def test_passwords_are_not_printed() -> None:
    assert "secret" not in repr(Settings.load({"api_auth": "me:secret"}))


def test_checkpoints_lie_where_a1111_puts_them() -> None:
    usual = Path("m/Stable-diffusion")
    assert Settings.load({"models_dir": "m"}).checkpoint_folders == [usual]
    assert Settings.load({"models_dir": "m", "ckpt_dir": str(usual)}).checkpoint_folders == [usual]
    assert Settings.load({"models_dir": "m", "ckpt_dir": "c"}).checkpoint_folders == [Path("c"), usual]
    Path("c/experiments/pretrained_models").mkdir(parents=True)
    assert Settings.load({"models_dir": "m", "ckpt_dir": "c"}).checkpoint_dir == Path("c/experiments/pretrained_models")


@pytest.mark.parametrize(
    "wrong", [{"freeze_specific_settings": "jpeg_quality,jpeg_qualty"}, {"freeze_settings_in_sections": "saving-image"}]
)
def test_what_is_frozen_under_a_misspelt_name_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="is not among"):
        Settings.model_validate(wrong)


@pytest.mark.parametrize("wrong", ["alice:wonderland", "user alice wonderland", " , ", f"key a sha256:{'0' * 64},x"])
def test_hashes_that_cannot_be_read_are_refused_without_being_shown(wrong: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(api_auth_hashed=SecretStr(wrong))
    assert "wonderland" not in str(caught.value.errors(include_input=False))


@pytest.mark.parametrize(
    ("given", "environment", "wanted"),
    [
        ("", {}, False),
        ("http://x:4318", {}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, True),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True),
        ("http://x:4318", {"OTEL_SDK_DISABLED": "true"}, False),
        ("http://x:4318", {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_made_where_somebody_says_where_to(
    monkeypatch: pytest.MonkeyPatch, given: str, environment: dict[str, str], wanted: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings(otlp_endpoint=given).traces_wanted is wanted
