"""One network from pictures to pictures, of whatever architecture spandrel knows, read from bare tensors.

The only file that imports spandrel. Knows nothing of where files lie, how large pictures are cut up, or faces.
"""

import importlib
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.errors import BadModelFile
from darkroom.nets import libraries  # noqa: F401  first: without it spandrel's torchvision cannot be imported
from darkroom.nets.pickles import read_state_dict

# isort: split
from spandrel import MAIN_REGISTRY, ArchRegistry, ImageModelDescriptor, UnsupportedModelError, canonicalize_state_dict

Levels = NDArray[np.uint8]
"""Pixels `[H, W, C]`."""

EXTRA = "spandrel_extra_arches"
"""A package of further architectures, CodeFormer among them, whose licences forbid commercial use: whoever may use it
installs it.
"""

MAX_BYTES = 4 << 30
_CHANNELS = (1, 3)
_CONVOLUTIONAL = frozenset({"Compact", "ESRGAN"})


class PictureNetwork:
    """A network on its device. `scale` is how many times as large its pictures are."""

    __slots__ = ("_model", "dtype", "nbytes")

    def __init__(self, model: ImageModelDescriptor[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = _supported(model, dtype)
        self._model = model.to(device, self.dtype).eval()
        self._model.model.requires_grad_(False)
        if self.architecture in _CONVOLUTIONAL:
            self._model.model.to(memory_format=torch.channels_last)  # which is much quicker
        self.nbytes: int = sum(weight.nbytes for weight in self._model.model.state_dict().values())

    @property
    def scale(self) -> int:
        """How many times as wide and as high the pictures get; 1 for a network that only mends."""
        return int(self._model.scale)

    @property
    def architecture(self) -> str:
        """What spandrel takes it for."""
        return str(self._model.architecture.id)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device(self._model.device)

    @property
    def inner(self) -> nn.Module:
        """The bare module, for networks that are called in ways of their own."""
        module: nn.Module = self._model.model
        return module

    def enlarge(self, picture: Levels, *, blue_first: bool = False) -> Levels:
        """The picture `[H, W, 3]`, `scale` times as large. `blue_first` shows it with red and blue exchanged."""
        seen = picture[..., ::-1] if blue_first else picture
        pixels = torch.from_numpy(seen.copy()).to(self.device).movedim(-1, 0)
        drawn = self._run(pixels)
        if self.dtype != torch.float32 and bool(drawn.isnan().any()):
            self._widen()
            drawn = self._run(pixels)
        levels = drawn.float().clamp(0, 1).mul(255).round().to(torch.uint8).movedim(0, -1).cpu().numpy()
        return np.ascontiguousarray(levels[..., ::-1] if blue_first else levels)

    def _widen(self) -> None:
        """Compute in float32 from now on: some networks have values that are too large for fp16."""
        self._model.float()
        self.dtype, self.nbytes = torch.float32, 2 * self.nbytes

    def _run(self, levels: Tensor) -> Tensor:
        """Levels `[3, H, W]` in 0..255 to pixels in 0..1. A grey network sees one channel after the other."""
        pixels = levels.to(self.dtype) / 255
        rows = pixels[None] if self._model.input_channels == 3 else pixels[:, None]
        return torch.cat([self._model(row[None]) for row in rows]).reshape(3, *self._drawn_size(pixels))

    def _drawn_size(self, pixels: Tensor) -> tuple[int, int]:
        height, width = pixels.shape[-2:]
        return height * self.scale, width * self.scale


def load_network(path: Path, device: torch.device, dtype: torch.dtype) -> PictureNetwork:
    """Read a network; it computes in `dtype` if it can. Raises BadModelFile, which names the file."""
    return PictureNetwork(recognise(read_state_dict(path, MAX_BYTES), path.name), device, dtype)


def recognise(weights: dict[str, Tensor], name: str) -> ImageModelDescriptor[nn.Module]:
    """The network whose weights these are, in float32 on the CPU. Raises BadModelFile under the file's `name`."""
    floats = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how spandrel's architectures are written
            model = registry().load(canonicalize_state_dict(floats))
    except UnsupportedModelError as error:
        hint = "" if find_spec(EXTRA) else "; CodeFormer and some others need `pip install darkroom[noncommercial]`"
        raise BadModelFile(f"{name}: holds no network that spandrel knows{hint}") from error
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise BadModelFile(f"{name}: its weights fit no network: {_first_line(error)}") from error
    if not isinstance(model, ImageModelDescriptor):
        raise BadModelFile(f"{name}: a network of {model.purpose}, which takes a mask beside the picture")
    channels = model.input_channels, model.output_channels
    if channels[0] not in _CHANNELS or channels[0] != channels[1]:
        raise BadModelFile(f"{name}: makes {channels[1]} channels of {channels[0]}, where pictures have 3")
    return model


def registry() -> ArchRegistry:
    """Spandrel's architectures, and those of the other package where that is installed."""
    if find_spec(EXTRA) is None:
        return MAIN_REGISTRY
    known = MAIN_REGISTRY.copy()
    known.add(*importlib.import_module(EXTRA).EXTRA_REGISTRY, ignore_duplicates=True)
    return known


def _supported(model: ImageModelDescriptor[nn.Module], dtype: torch.dtype) -> torch.dtype:
    """The format asked for if the network may compute in it; for fp16 bf16 is the next best, then fp32."""
    for wanted in dict.fromkeys((dtype, torch.bfloat16 if dtype == torch.float16 else dtype)):
        if wanted == torch.float16 and model.supports_half:
            return wanted
        if wanted == torch.bfloat16 and model.supports_bfloat16:
            return wanted
    return torch.float32


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
