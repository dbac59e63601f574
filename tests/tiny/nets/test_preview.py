import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from darkroom.nets.preview import Decoder, Method, Previewer, find_space, linear

CPU = torch.device("cpu")
SD1 = (4, 0.18215)


class Block(nn.Module):
    """As the tiny autoencoder's authors wrote it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def tiny_decoder() -> nn.Sequential:
    layers: list[nn.Module] = [Clamp(), nn.Conv2d(4, 64, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [Block(64), Block(64), Block(64), nn.Upsample(scale_factor=2)]
        layers.append(nn.Conv2d(64, 64, 3, padding=1, bias=False))
    return nn.Sequential(*layers, Block(64), nn.Conv2d(64, 3, 3, padding=1))


def approximation() -> dict[str, Tensor]:
    widths, sizes = (4, 8, 16, 32, 64, 32, 16, 8, 3), (7, 5, 3, 3, 3, 3, 3, 3)
    layers = [nn.Conv2d(a, b, size) for a, b, size in zip(widths, widths[1:], sizes, strict=False)]
    return {f"conv{n}.{name}": value for n, layer in enumerate(layers, 1) for name, value in layer.state_dict().items()}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def decoder(folder: Path, method: Method) -> Decoder:
    found = Previewer(folder, CPU).find_decoder(method, *SD1)
    assert found is not None
    return found


LATENT = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("channels", "scale", "space"),
    [(4, 0.18215, "sd1"), (4, 0.13025, "sdxl"), (16, 1.5305, "sd3"), (16, 0.3611, "flux"), (4, 0.5, None)],
)
def test_a_latent_space_is_known_by_its_size_and_scale(channels: int, scale: float, space: str | None) -> None:
    assert find_space(channels, scale) == space


def test_the_linear_map_colours_every_latent_pixel() -> None:
    latents = torch.zeros(1, 4, 2, 3)
    latents[0, 3, 1, 2] = 2
    pixels = linear("sd1")(latents)
    assert pixels.shape == (1, 3, 2, 3)
    assert pixels[0, :, 1, 2].tolist() == pytest.approx([-0.368, -0.542, -0.946])
    assert pixels[0, :, 0, 0].tolist() == [0, 0, 0]
    assert linear("sdxl")(latents).shape == (1, 3, 2, 3)
    assert linear("sd3")(torch.zeros(2, 16, 2, 3)).shape == (2, 3, 2, 3)
    assert linear("flux")(torch.zeros(2, 16, 2, 3)).shape == (2, 3, 2, 3)


def test_the_approximating_network_pads_once_and_bends_after_every_layer(tmp_path: Path) -> None:
    weights = approximation()
    write(tmp_path, "VAE-approx/model.pt", weights)
    x = nn.functional.pad(nn.functional.interpolate(LATENT, (16, 16)), (11,) * 4)
    for n in range(1, 9):
        x = nn.functional.leaky_relu(nn.functional.conv2d(x, weights[f"conv{n}.weight"], weights[f"conv{n}.bias"]), 0.1)
    found = decoder(tmp_path, "Approx NN")(LATENT)
    assert found.shape == (1, 3, 16, 16)
    assert torch.equal(found, x)


def test_the_tiny_autoencoder_is_read_from_its_own_file_and_from_diffusers(tmp_path: Path) -> None:
    theirs = tiny_decoder()
    expected = theirs(LATENT) * 2 - 1
    write(tmp_path, "own/VAE-taesd/taesd_decoder.pth", theirs.state_dict())
    renamed = {f"decoder.layers.{_lowered(name)}": value for name, value in theirs.state_dict().items()}
    (tmp_path / "other/VAE-taesd").mkdir(parents=True)
    save_file(renamed, tmp_path / "other/VAE-taesd/taesd_decoder.safetensors")
    for folder in ("own", "other"):
        found = decoder(tmp_path / folder, "TAESD")(LATENT)
        assert found.shape == (1, 3, 64, 64)
        assert torch.allclose(found, expected, atol=1e-5)


def _lowered(name: str) -> str:
    number, _, tail = name.partition(".")
    return f"{int(number) - 1}.{tail}"


def test_without_weights_the_linear_map_does(tmp_path: Path) -> None:
    for method in ("Approx cheap", "Approx NN", "TAESD"):
        assert decoder(tmp_path, method)(LATENT).shape == (1, 3, 8, 8)


def test_the_next_best_weights_stand_in(tmp_path: Path) -> None:
    write(tmp_path, "VAE-approx/model.pt", approximation())
    assert decoder(tmp_path, "TAESD")(LATENT).shape == (1, 3, 16, 16)
    assert decoder(tmp_path, "Approx cheap")(LATENT).shape == (1, 3, 8, 8)


def test_only_the_autoencoder_shows_what_nobody_has_mapped(tmp_path: Path) -> None:
    previewer = Previewer(tmp_path, CPU)
    assert previewer.find_decoder("Approx cheap", 4, 0.5) is None
    assert previewer.find_decoder("Full", *SD1) is None


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("content", [Evil(), {"conv1.weight": Evil()}, {"conv1.weight": torch.zeros(3)}, {}, [1]])
def test_a_file_that_is_no_such_network_is_named_once_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "VAE-approx/model.pt", content)
    write(tmp_path, "VAE-taesd/taesd_decoder.pth", content)
    previewer = Previewer(tmp_path, CPU)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = previewer.find_decoder("TAESD", *SD1)
            assert found is not None
            assert found(LATENT).shape == (1, 3, 8, 8)
    assert len(caplog.records) == 2
    assert not (tmp_path / "evil").exists()
