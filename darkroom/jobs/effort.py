"""How much a job has to do, before it is done: network inputs by the size of their latents. A guess, for taking turns.

Knows requests; knows no times.
"""

from dataclasses import dataclass

from darkroom.jobs.retouching import Spec
from darkroom.jobs.spec import JobSpec
from darkroom.sampling.names import SAMPLERS

DECODE_INPUTS = 3
"""Turning a latent into a picture costs about as much as so many inputs of the denoiser (Stable Diffusion 1 and XL: 3.1
and 1.6 times the operations).
"""

TILE_PIXELS = 24 * 24
"""The side of a tile that is enlarged, and what it is worth, as if it were a latent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """One pass: so many inputs of a checkpoint's denoiser, each of so many latent pixels."""

    checkpoint: str
    pixels: int
    inputs: float


def efforts(spec: Spec) -> list[Effort]:
    """What one picture of a job takes, pass by pass."""
    if not isinstance(spec, JobSpec):
        height, width = spec.picture.shape[:2]
        return [Effort(checkpoint="", pixels=TILE_PIXELS, inputs=max(1.0, height * width / (64 * TILE_PIXELS)))]
    share = spec.init.denoising_strength if spec.init and not spec.init.fix_steps else 1.0
    found = []
    if spec.hires is None or spec.hires.picture is None:
        found.append(_pass(spec, spec.checkpoint, (spec.width, spec.height), spec.sampler, spec.steps * share))
    if spec.hires:
        steps = spec.hires.steps * spec.hires.denoising_strength
        found.append(_pass(spec, spec.hires.checkpoint, spec.hires.size, spec.hires.sampler, steps))
    return found


def _pass(spec: JobSpec, checkpoint: str, size: tuple[int, int], sampler: str, steps: float) -> Effort:
    guided = 1 if spec.cfg_scale == 1 else 2
    calls = 2 if any(one.second_order for one in SAMPLERS if one.name == sampler) else 1
    inputs = max(1.0, steps) * guided * calls + DECODE_INPUTS
    return Effort(checkpoint=checkpoint, pixels=(size[0] // 8) * (size[1] // 8), inputs=inputs)
