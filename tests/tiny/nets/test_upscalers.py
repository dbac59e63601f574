"""Networks that enlarge pictures, of every architecture that people have files of, read from whatever they lie in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from darkroom.errors import BadModelFile
from darkroom.mini import renders, upscaler_stage
from darkroom.nets.upscalers.network import Levels, load_network
from darkroom.nets.upscalers.shelf import embedded_file
from tests.tiny.networks_of_pictures import UPSCALERS, small_restorer, weights_of

CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def noise(width: int, height: int) -> Levels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", UPSCALERS)
def test_every_architecture_is_known_by_its_weights(tmp_path: Path, name: str, suffix: str) -> None:
    factor, build = UPSCALERS[name]
    path, weights = tmp_path / f"any{suffix}", weights_of(build)
    save_file(weights, path) if suffix == ".safetensors" else torch.save({"params_ema": weights}, path)
    network = load_network(path, CPU, torch.float32)
    assert (network.architecture, network.scale) == (name, factor)
    with torch.inference_mode():
        assert network.enlarge(noise(48, 40)).shape == (40 * factor, 48 * factor, 3)


def test_half_precision_weights_are_read(tmp_path: Path) -> None:
    weights = {name: tensor.half() for name, tensor in weights_of(UPSCALERS["Compact"][1]).items()}
    save_file(weights, tmp_path / "half.safetensors")
    assert load_network(tmp_path / "half.safetensors", CPU, torch.bfloat16).dtype == torch.bfloat16


def test_a_network_that_cannot_compute_in_half_precision_takes_the_next_best(tmp_path: Path) -> None:
    save_file(weights_of(small_restorer), tmp_path / "face.safetensors")
    assert load_network(tmp_path / "face.safetensors", CPU, torch.float16).dtype == torch.bfloat16


def test_a_network_whose_values_fp16_cannot_hold_computes_in_float32(tmp_path: Path) -> None:
    weights = {
        name: tensor * (3e4 if "weight" in name else 1) for name, tensor in weights_of(UPSCALERS["Compact"][1]).items()
    }
    save_file(weights, tmp_path / "wild.safetensors")
    networks = [load_network(tmp_path / "wild.safetensors", CPU, dtype) for dtype in (torch.float16, torch.float32)]
    with torch.inference_mode():
        drawn = [network.enlarge(noise(16, 16)) for network in networks]
    assert networks[0].dtype == torch.float32
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_a_grey_network_sees_one_channel_after_the_other(tmp_path: Path) -> None:
    from spandrel.architectures.Compact import Compact

    save_file(weights_of(lambda: Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=1, upscale=2)), tmp_path / "g")
    picture = noise(16, 16)
    with torch.inference_mode():
        network = load_network(tmp_path / "g", CPU, torch.float32)
        whole = network.enlarge(picture)
        red = network.enlarge(picture[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(whole[..., 0], red[..., 1])


@pytest.mark.parametrize("name", ["Compact", "ESRGAN"])
def test_blue_first_is_red_and_blue_exchanged_before_and_after(tmp_path: Path, name: str) -> None:
    save_file(weights_of(UPSCALERS[name][1]), tmp_path / "n.safetensors")
    picture = noise(24, 16)
    with torch.inference_mode():
        network = load_network(tmp_path / "n.safetensors", CPU, torch.float32)
        there_and_back = network.enlarge(picture[..., ::-1])[..., ::-1]
        np.testing.assert_array_equal(network.enlarge(picture, blue_first=True), there_and_back)


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"something": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(BadModelFile, match=r"^odd\.safetensors: holds no network that spandrel knows"):
        load_network(tmp_path / "odd.safetensors", CPU, torch.float32)


def test_a_damaged_network_is_refused_by_name(tmp_path: Path) -> None:
    weights = weights_of(UPSCALERS["ESRGAN"][1])
    weights["model.1.sub.0.RDB1.conv1.0.weight"] = torch.zeros(1, 2, 3)
    save_file(weights, tmp_path / "torn.safetensors")
    with pytest.raises(BadModelFile, match=r"^torn\.safetensors: its weights fit no network"):
        load_network(tmp_path / "torn.safetensors", CPU, torch.float32)


def test_a_file_that_is_no_tensors_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(BadModelFile, match=r"text\.pth"):
        load_network(tmp_path / "text.pth", CPU, torch.float32)


def test_the_embedded_network_is_small_and_doubles() -> None:
    path = embedded_file()
    network = load_network(path, CPU, torch.float32)
    assert (network.architecture, network.scale) == ("Compact", 2)
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_embedded_network_enlarges_better_than_lanczos(dtype: torch.dtype) -> None:
    if not renders.LETTERING.is_dir():
        pytest.skip(f"no fonts in {renders.LETTERING}")
    fonts = renders.find_fonts()
    pictures = upscaler_stage.exam(
        renders.Supplies(glyphs=(), fonts=fonts), 2, pixels=96, kinds=("lettering", "shapes")
    )
    network = load_network(embedded_file(), CPU, dtype)
    ways: dict[str, upscaler_stage.Enlarge] = {"network": network.enlarge, "Lanczos": upscaler_stage.by_lanczos}
    with torch.inference_mode():
        scores = upscaler_stage.judge(pictures, ways, Image.Resampling.BICUBIC)
    for kind, score in scores["network"].items():
        assert score > scores["Lanczos"][kind] + 4
