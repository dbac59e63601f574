"""How near everything in a picture is: MiDaS' DPT hybrid (Ranftl et al. 2021, arXiv:2103.13413).

The weights are those that transformers publishes as Intel/dpt-hybrid-midas, one safetensors file. Knows no checkpoint
and no latent.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from darkroom.errors import BadModelFile
from darkroom.nets.libraries import DPTConfig, DPTForDepthEstimation

SIDE = 384
"""Pixels of the square that the network looks at. MiDaS itself keeps a picture's proportions, this stretches it."""


def find_depth_file(folder: Path) -> Path | None:
    """The network's file in a folder: the first safetensors by name."""
    return min(folder.glob("*.safetensors"), default=None)


class DepthNetwork:
    """The network on its device, in float32."""

    __slots__ = ("_model",)

    def __init__(self, model: DPTForDepthEstimation) -> None:
        self._model = model

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(weight.nbytes for weight in self._model.parameters())

    @torch.inference_mode()
    def estimate(self, pixels: Tensor) -> Tensor:
        """Inverse depth `[1, 384, 384]`, larger is nearer, of pixels `[3, H, W]` in -1..1."""
        square = interpolate(pixels[None], (SIDE, SIDE), mode="bicubic", align_corners=False)
        depth: Tensor = self._model(pixel_values=square).predicted_depth
        return depth


def load_depth(path: Path, device: torch.device) -> DepthNetwork:
    """Load the network. Raises BadModelFile if the file is another's or damaged."""
    config = DPTConfig(is_hybrid=True, reassemble_factors=[1, 1, 1, 0.5], neck_hidden_sizes=[256, 512, 768, 768])
    try:
        # Copies: mapped pages would change, or vanish, with the file.
        weights = {name: value.clone() for name, value in load_file(path).items()}
        with torch.device("meta"):
            model = DPTForDepthEstimation(config)
        # The file may hold heads that are not used here.
        result = model.load_state_dict(weights, strict=False, assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise BadModelFile(f"{path.name}: not a DPT hybrid depth network: {error}") from error
    if result.missing_keys:
        raise BadModelFile(f"{path.name}: not a DPT hybrid depth network: no {result.missing_keys[0]}")
    return DepthNetwork(model.to(device, torch.float32).requires_grad_(False).eval())
