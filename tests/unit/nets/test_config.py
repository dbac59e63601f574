"""The YAML beside a checkpoint."""

from pathlib import Path

import pytest

from darkroom.errors import BadModelFile
from darkroom.nets.config import MAX_BYTES, ModelConfig, beside, read_config


def written(folder: Path, text: str) -> Path:
    path = folder / "model.yaml"
    path.write_text(text)
    return path


def params(text: str) -> str:
    return "model:\n  params:\n" + "".join(f"    {line}\n" for line in text.splitlines())


def test_a_checkpoint_without_yaml_is_stable_diffusion_1() -> None:
    assert read_config(None) == ModelConfig()


def test_what_the_yaml_says_is_read(tmp_path: Path) -> None:
    text = params(
        "linear_start: 1e-4\nlinear_end: 0.02\ntimesteps: 500\nscale_factor: 0.5\nparameterization: v\n"
        "unet_config: {params: {num_head_channels: 64, num_heads: -1}}"
    )
    config = read_config(written(tmp_path, "darkroom: {native_size: 128}\n" + text))
    assert config == ModelConfig(
        linear_start=1e-4,
        linear_end=0.02,
        timesteps=500,
        scale=0.5,
        prediction="v",
        heads=None,
        head_channels=64,
        native_size=128,
    )


def test_an_empty_yaml_leaves_the_defaults(tmp_path: Path) -> None:
    assert read_config(written(tmp_path, "")) == ModelConfig()


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("sd2", {"head_channels": 64, "heads": None, "native_size": 768, "scale": 0.18215}),
        ("sdxl", {"head_channels": 64, "heads": None, "native_size": 1024, "scale": 0.13025, "prediction": "epsilon"}),
        ("refiner", {"head_channels": 64, "heads": None, "native_size": 1024, "scale": 0.13025}),
    ],
)
def test_without_a_yaml_a_family_is_as_it_was_published(family: str, expected: dict[str, object]) -> None:
    config = read_config(None, family)
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.probe == (family == "sd2"), "only the network can tell which of the two kinds it is"


@pytest.mark.parametrize(("kind", "size"), [("v", 768), ("eps", 512)])
def test_a_yaml_tells_both_kinds_of_the_second_family_apart(tmp_path: Path, kind: str, size: int) -> None:
    config = read_config(written(tmp_path, params(f"parameterization: {kind}")), "sd2")
    assert (config.probe, config.native_size, config.head_channels) == (False, size, 64)
    assert config.prediction == ("v" if kind == "v" else "epsilon")


@pytest.mark.parametrize(("scaling", "prediction"), [("EpsScaling", "epsilon"), ("VScaling", "v")])
def test_the_layout_of_xl_names_classes(tmp_path: Path, scaling: str, prediction: str) -> None:
    text = params(
        "scale_factor: 0.2\n"
        "denoiser_config:\n"
        "  params:\n"
        "    num_idx: 1000\n"
        f"    scaling_config: {{target: sgm.modules.diffusionmodules.denoiser_scaling.{scaling}}}\n"
        "    discretization_config: {target: x, params: {linear_start: 0.001, linear_end: 0.02, num_timesteps: 500}}\n"
        "network_config: {params: {num_head_channels: 32}}"
    )
    config = read_config(written(tmp_path, text), "sdxl")
    assert config == ModelConfig(
        linear_start=0.001,
        linear_end=0.02,
        timesteps=500,
        scale=0.2,
        prediction="v" if prediction == "v" else "epsilon",
        heads=None,
        head_channels=32,
        native_size=1024,
    )


def test_a_number_of_heads_is_read(tmp_path: Path) -> None:
    assert read_config(written(tmp_path, params("unet_config: {params: {num_heads: 5}}"))).heads == 5


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "model: 3",
        "model: {params: [",
        "!!python/object/apply:os.system [true]",
        params("scale_factor: many"),
        params("scale_factor: 0"),
        params("scale_factor: .nan"),
        params("timesteps: 1000000"),
        params("timesteps: -3"),
        params("linear_start: 0.5"),
        params("unet_config: {params: {num_heads: 1.5}}"),
        "darkroom: {native_size: 100}",
        "darkroom: {native_size: 100000}",
        "darkroom: {native_size: true}",
        "\x00",
    ],
)
def test_a_yaml_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadModelFile, match=r"model\.yaml"):
        read_config(written(tmp_path, text))


def test_an_endless_yaml_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="larger than"):
        read_config(written(tmp_path, "#" * (MAX_BYTES + 1)))


def test_a_yaml_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile):
        read_config(tmp_path / "none.yaml")


def test_the_yaml_of_a_checkpoint_has_its_name(tmp_path: Path) -> None:
    config = written(tmp_path, "")
    assert beside(tmp_path / "model.safetensors") == config
    assert beside(tmp_path / "other.safetensors") is None
