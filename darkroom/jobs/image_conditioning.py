"""What some checkpoints see beside the latent: a masked picture with its mask, a picture to edit, or its depth.

Knows what each kind of checkpoint wants; knows nothing of networks or of what happens to the latent itself.
"""

from collections.abc import Generator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darkroom.errors import BadRequest
from darkroom.jobs.ops import Answer, EncodeImage, EstimateDepth, Op
from darkroom.jobs.spec import Model, Picture

Asking = Generator[Op, Answer, Tensor | None]
"""Asks the engine, returns `[C', H/8, W/8]`, or None for a checkpoint that sees nothing beside the latent."""


def blank_conditioning(model: Model, size: tuple[int, int], device: torch.device) -> Asking:
    """For a picture made of nothing, of `size` (height, width) in pixels: mid-grey, and all of it to be repainted.

    Raises BadRequest for a checkpoint that cannot do without a picture.
    """
    if model.traits.conditioning == "none":
        return None
    if model.traits.conditioning != "inpaint":
        raise BadRequest("sd_model_checkpoint", model.checkpoint, "it needs a picture to start from: use img2img")
    return (yield from _inpainting(model, torch.zeros(3, *size, device=device), torch.ones(size, device=device)))


def picture_conditioning(model: Model, pixels: Tensor, mask: Tensor | None = None, weight: float = 1.0) -> Asking:
    """For a picture `[3, H, W]` in -1..1 that is drawn over.

    `mask` `[H, W]` is 1 where it is repainted (None: everywhere); there the picture is hidden by `weight`, 0..1.
    """
    match model.traits.conditioning:
        case "none":
            return None
        case "edit":
            whole: Tensor = yield EncodeImage(model=model, picture=pixels, scaled=False)
            return whole
        case "depth":
            return (yield from _depth(model, pixels))
        case "inpaint":
            covered = torch.ones_like(pixels[0]) if mask is None else _at(mask, pixels.shape[-2:])
            hidden = torch.lerp(pixels, pixels * (1 - covered), weight)
            return (yield from _inpainting(model, hidden, covered))


def as_pixels(picture: Picture, device: torch.device) -> Tensor:
    """The picture as `[3, H, W]` float32 in -1..1."""
    return torch.tensor(picture, device=device).movedim(-1, 0).float() / 255 * 2 - 1


def _inpainting(model: Model, hidden: Tensor, covered: Tensor) -> Generator[Op, Answer, Tensor]:
    latent: Tensor = yield EncodeImage(model=model, picture=hidden)
    return torch.cat([_at(covered, latent.shape[-2:])[None], latent])


def _depth(model: Model, pixels: Tensor) -> Generator[Op, Answer, Tensor]:
    """-1..1, from the farthest to the nearest thing in the picture."""
    depth: Tensor = yield EstimateDepth(model=model, picture=pixels)
    height, width = pixels.shape[-2:]
    small = interpolate(depth[None], (height // 8, width // 8), mode="bicubic", align_corners=False)[0]
    low, high = small.min(), small.max()
    return 2 * (small - low) / (high - low).clamp(min=1e-12) - 1


def _at(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """The mask `[h, w]` at another size, each level taken from its nearest neighbour."""
    return interpolate(mask[None, None], size, mode="nearest")[0, 0]
