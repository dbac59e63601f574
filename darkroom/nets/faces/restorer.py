"""What a face restorer, GFPGAN, CodeFormer or RestoreFormer, makes of an aligned face.

Knows networks and pixels; knows nothing of where faces are or where files lie.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.faces.detection import Levels
from darkroom.nets.upscalers.network import PictureNetwork, load_network

_KNOWN = ("GFPGAN", "CodeFormer", "RestoreFormer")


def load_restorer(path: Path, device: torch.device, dtype: torch.dtype) -> PictureNetwork:
    """Read a restorer. Raises BadModelFile for what is none."""
    network = load_network(path, device, dtype)
    if network.architecture not in _KNOWN:
        raise BadModelFile(f"{path.name}: a {network.architecture} network, which restores no faces")
    return network


def restore(network: PictureNetwork, face: Levels, weight: float) -> Levels:
    """The aligned face `[512, 512, 3]` anew. `weight` 0..1 is how much of it CodeFormer keeps; others have none."""
    pixels = torch.from_numpy(face.copy()).movedim(-1, 0)[None].to(network.device, network.dtype)
    drawn = _draw(network, pixels / 127.5 - 1, weight)
    levels = (drawn.float()[0].clamp(-1, 1) + 1) / 2 * 255
    # A1111: no rounding
    return np.ascontiguousarray(levels.to(torch.uint8).movedim(0, -1).cpu().numpy())


def _draw(network: PictureNetwork, pixels: Tensor, weight: float) -> Tensor:
    """A face `[1, 3, 512, 512]` in -1..1 to such."""
    drawn: Tensor
    match network.architecture:
        case "CodeFormer":
            drawn = network.inner(pixels, weight=weight)[0]
        case "GFPGAN":
            # The noise that it was trained with, not a new one: the same face is always restored alike.
            drawn = network.inner(pixels, return_rgb=False, randomize_noise=False)[0]
        case _:
            drawn = network.inner(pixels)[0]
    return drawn
