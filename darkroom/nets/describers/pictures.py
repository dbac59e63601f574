"""Pictures as CLIP's relatives look at them: numbers around zero."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue over CLIP's pictures; Radford et al. 2021, arXiv:2103.00020."""


def normalised(picture: Image.Image) -> Tensor:
    """Pixels `[3, H, W]` float32 of an RGB picture, less the mean and over the deviation of every colour."""
    levels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).movedim(-1, 0)
    return (levels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def squared(picture: Image.Image, side: int) -> Image.Image:
    """The middle of a picture, its shorter side brought to `side` pixels."""
    scale = side / min(picture.size)
    # Truncated, as torchvision does, by whose rules CLIP was trained.
    width, height = (side if length == min(picture.size) else int(length * scale) for length in picture.size)
    whole = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return whole.crop((left, top, left + side, top + side))
