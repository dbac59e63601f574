"""Cheap ways from a latent that is still being sampled to a picture of what it will show.

Knows four latent spaces (SD1 with SD2, SDXL, SD3, FLUX.1) and the small decoders that people have trained for them. A
latent of any other space cannot be shown here.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pad

from darkroom.errors import BadModelFile, BadRequest
from darkroom.nets.libraries import DecoderTiny
from darkroom.nets.pickles import read_tensors

log = logging.getLogger(__name__)

Space = Literal["sd1", "sdxl", "sd3", "flux"]
Method = Literal["Full", "Approx NN", "Approx cheap", "TAESD"]
Decoder = Callable[[Tensor], Tensor]
"""Pixels `[B, 3, H, W]`, about -1..1, of scaled latents `[B, C, h, w]`; H and W depend on the method."""

MAX_BYTES = 200_000_000

_SCALES: Mapping[tuple[int, float], Space] = MappingProxyType(
    {(4, 0.18215): "sd1", (4, 0.13025): "sdxl", (16, 1.5305): "sd3", (16, 0.3611): "flux"}
)
"""Latent space by channels and scale."""

_RGB: Mapping[Space, tuple[tuple[float, float, float], ...]] = MappingProxyType(
    {
        "sd1": ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
        "sdxl": (
            (0.3448, 0.4168, 0.4395), (-0.1953, -0.0290, 0.0250), (0.1074, 0.0886, -0.0163),
            (-0.3730, -0.2499, -0.2088),
        ),
        "sd3": (
            (-0.0645, 0.0177, 0.1052), (0.0028, 0.0312, 0.0650), (0.1848, 0.0762, 0.0360), (0.0944, 0.0360, 0.0889),
            (0.0897, 0.0506, -0.0364), (-0.0020, 0.1203, 0.0284), (0.0855, 0.0118, 0.0283), (-0.0539, 0.0658, 0.1047),
            (-0.0057, 0.0116, 0.0700), (-0.0412, 0.0281, -0.0039), (0.1106, 0.1171, 0.1220), (-0.0248, 0.0682, -0.0481),
            (0.0815, 0.0846, 0.1207), (-0.0120, -0.0055, -0.0867), (-0.0749, -0.0634, -0.0456),
            (-0.1418, -0.1457, -0.1259),
        ),
        "flux": (
            (-0.0346, 0.0244, 0.0681), (0.0034, 0.0210, 0.0687), (0.0275, -0.0668, -0.0433), (-0.0174, 0.0160, 0.0617),
            (0.0859, 0.0721, 0.0329), (0.0004, 0.0383, 0.0115), (0.0405, 0.0861, 0.0915), (-0.0236, -0.0185, -0.0259),
            (-0.0245, 0.0250, 0.1180), (0.1008, 0.0755, -0.0421), (-0.0515, 0.0201, 0.0011), (0.0428, -0.0012, -0.0036),
            (0.0817, 0.0765, 0.0749), (-0.1264, -0.0522, -0.1103), (-0.0280, -0.0881, -0.0499),
            (-0.1262, -0.0982, -0.0778),
        ),
    }
)  # fmt: skip
"""Red, green and blue per channel of a scaled latent, as regressions over many pictures found them."""

_BASE: Mapping[Space, tuple[float, float, float]] = MappingProxyType({"flux": (-0.0329, -0.0718, -0.0851)})
"""What a latent of zeros looks like, where that is not grey."""

_FILES: Mapping[tuple[Method, Space], tuple[str, str]] = MappingProxyType(
    {
        ("Approx NN", "sd1"): ("VAE-approx", "model"),
        ("Approx NN", "sdxl"): ("VAE-approx", "vaeapprox-sdxl"),
        ("Approx NN", "sd3"): ("VAE-approx", "vaeapprox-sd3"),
        ("Approx NN", "flux"): ("VAE-approx", "vaeapprox-flux"),
        ("TAESD", "sd1"): ("VAE-taesd", "taesd_decoder"),
        ("TAESD", "sdxl"): ("VAE-taesd", "taesdxl_decoder"),
        ("TAESD", "sd3"): ("VAE-taesd", "taesd3_decoder"),
        ("TAESD", "flux"): ("VAE-taesd", "taef1_decoder"),
    }
)
"""Folder and stem of a small decoder's weights."""

_SUFFIXES = (".safetensors", ".pt", ".pth")

_INSTEAD: Mapping[Method, tuple[Method, ...]] = MappingProxyType(
    {
        "Full": (),
        "Approx cheap": ("Approx cheap",),
        "Approx NN": ("Approx NN", "TAESD", "Approx cheap"),
        "TAESD": ("TAESD", "Approx NN", "Approx cheap"),
    }
)
"""What is tried for a method, in turn; after the last there is the autoencoder itself."""


def find_space(channels: int, scale: float) -> Space | None:
    """The latent space of an autoencoder with so many channels and this scale."""
    return _SCALES.get((channels, scale))


class Previewer:
    """The small decoders of one models folder, loaded when they are first asked for."""

    def __init__(self, models_dir: Path, device: torch.device) -> None:
        self._models_dir = models_dir
        self._device = device
        self._loaded: dict[Path, Decoder | None] = {}

    def find_decoder(self, method: Method, channels: int, scale: float) -> Decoder | None:
        """The decoder of a method, or of the next best one whose weights are there.

        None means that the autoencoder itself must do: it was asked for, or the latent space is not known.
        """
        space = find_space(channels, scale)
        if space is None:
            return None
        for tried in _INSTEAD[method]:
            found = linear(space) if tried == "Approx cheap" else self._find_network(tried, space)
            if found:
                return found
        return None

    def get_decoder(self, method: Method, channels: int, scale: float) -> Decoder:
        """The decoder of exactly this method. Raises BadRequest where its weights or the latent space are missing."""
        space = find_space(channels, scale)
        if space is None:
            raise BadRequest("sd_vae_decode_method", method, "Full for this checkpoint's latents")
        found = linear(space) if method == "Approx cheap" else self._find_network(method, space)
        if found is None:
            folder, stem = _FILES[method, space]
            raise BadRequest(
                "sd_vae_decode_method", method, f"Full, or put {stem}.pth into the models' folder {folder}"
            )
        return found

    def _find_network(self, method: Method, space: Space) -> Decoder | None:
        folder, stem = _FILES[method, space]
        paths = (self._models_dir / folder / f"{stem}{suffix}" for suffix in _SUFFIXES)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        if path not in self._loaded:
            self._loaded[path] = self._load(method, path)
        return self._loaded[path]

    def _load(self, method: Method, path: Path) -> Decoder | None:
        """The decoder in a file; None, and a line in the log, if it cannot be used."""
        try:
            weights = read_tensors(path, MAX_BYTES)
            network = load_taesd(weights) if method == "TAESD" else load_approximation(weights)
        except (BadModelFile, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            log.warning("%s cannot be used for previews: %s", path, str(error).splitlines()[0])
            return None
        return network.to(self._device).requires_grad_(False).eval()


def linear(space: Space) -> Decoder:
    """Every latent pixel by itself, as a weighted sum of its channels; an eighth of the picture's sides."""
    rows, base = torch.tensor(_RGB[space]), torch.tensor(_BASE.get(space, (0.0, 0.0, 0.0))).view(3, 1, 1)
    return lambda latents: torch.einsum("bchw,cr->brhw", latents, rows.to(latents)) + base.to(latents)


class Approximation(nn.Module):
    """Eight convolutions from latents `[B, C, h, w]` to pixels `[B, 3, 2h, 2w]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 8, 16, 32, 64, 32, 16, 8, 3)
        sizes = (7, 5, 3, 3, 3, 3, 3, 3)
        self.layers = nn.ModuleList(map(nn.Conv2d, widths[:-1], widths[1:], sizes))

    def forward(self, latents: Tensor) -> Tensor:
        # Eight convolutions without borders of their own take 3 + 2 + 6 * 1 pixels off every side.
        x = pad(interpolate(latents, scale_factor=2), (11, 11, 11, 11))
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.1)
        return x


def load_approximation(weights: Mapping[str, Tensor]) -> Approximation:
    """The network of tensors named conv1 to conv8. Raises KeyError, RuntimeError if they do not fit."""
    network = Approximation(weights["conv1.weight"].shape[1])
    network.load_state_dict({f"layers.{_number(name, 'conv') - 1}.{_tail(name)}": weights[name] for name in weights})
    return network.float()


def load_taesd(weights: Mapping[str, Tensor]) -> DecoderTiny:
    """The decoder of the tiny autoencoder, from its own file or from diffusers'. Raises RuntimeError and its kin.

    In its own file a layer without weights stands before all others, so every number is one higher.
    """
    theirs = {name.removeprefix("decoder.layers."): weights[name] for name in weights if name.startswith("decoder.")}
    ours = theirs or {f"{_number(name, '') - 1}.{_tail(name)}": weights[name] for name in weights}
    network = DecoderTiny(
        in_channels=ours["0.weight"].shape[1],
        out_channels=3,
        num_blocks=(3, 3, 3, 1),
        block_out_channels=(64, 64, 64, 64),
        upsampling_scaling_factor=2,
        act_fn="relu",
        upsample_fn="nearest",
    )
    network.layers.load_state_dict(ours)
    return network.float()


def _number(name: str, prefix: str) -> int:
    return int(name.removeprefix(prefix).partition(".")[0])


def _tail(name: str) -> str:
    return name.partition(".")[2]
