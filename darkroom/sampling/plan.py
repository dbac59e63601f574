"""From a request's numbers to noise levels and a starting point: what happens before the first step of a sampler.

Knows the two families of samplers and A1111's rules for img2img strength; nothing of networks or masks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from darkroom.sampling.names import Family, Sampler, effective_scheduler
from darkroom.sampling.schedules import NoiseTable, schedule_of, timestep_sigmas

MAX_LEVELS = 10_000
"""The longest schedule that a tiny strength may ask for; tables have a tenth as many levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The levels of one pass, descending: `full` is the whole schedule, `sigmas` the part that the sampler is given.

    `noise_sigma` is the level that a picture is noised to. A1111: for the timestep family it is one above `sigmas`.
    """

    family: Family
    full: tuple[float, ...]
    sigmas: tuple[float, ...]
    noise_sigma: float

    @property
    def steps(self) -> int:
        """How many steps the sampler makes."""
        return max(len(self.sigmas) - 1, 0)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Lowest positive and highest level of the whole schedule: the ends of the image's Brownian path."""
        return min(sigma for sigma in self.full if sigma > 0), max(self.full)


def plan_txt2img(table: NoiseTable, sampler: Sampler, scheduler: str, steps: int) -> Plan:
    """The levels of `steps` >= 1 steps from pure noise; `scheduler` is a label, ignored by the timestep family."""
    full = _levels(table, sampler, scheduler, steps)
    return Plan(family=sampler.family, full=full, sigmas=full, noise_sigma=full[0])


def plan_img2img(
    table: NoiseTable, sampler: Sampler, scheduler: str, steps: int, strength: float, fix_steps: bool = False
) -> Plan:
    """The levels from a noised picture; `strength` in 0..1 says how much of the schedule is walked.

    Runs int(strength * steps) + 1 steps, or with `fix_steps` exactly `steps` of a schedule that is so much longer.
    """
    total, kept = img2img_steps(steps, strength, fix_steps)
    full = _levels(table, sampler, scheduler, total)
    if sampler.family == "timestep":
        start = max(len(full) - kept, 1)
        return Plan(family="timestep", full=full, sigmas=full[start:], noise_sigma=full[start - 1])
    cut = full[min(total - kept - 1, len(full) - 2) :]
    return Plan(family="sigma", full=full, sigmas=cut, noise_sigma=cut[0])


def img2img_steps(steps: int, strength: float, fix_steps: bool = False) -> tuple[int, int]:
    """Length of the whole schedule, and how many of its steps are kept (one more is run)."""
    bounded = min(strength, 0.999)
    if fix_steps and strength > 0:
        return max(steps, int(min(steps / bounded, MAX_LEVELS))), steps - 1
    return steps, int(bounded * steps)


def begin_txt2img(plan: Plan, noise: Tensor) -> Tensor:
    """The x at the plan's first level, made of noise alone."""
    if plan.family == "timestep":
        return noise * math.hypot(1, plan.sigmas[0])
    return noise * plan.sigmas[0]


def begin_img2img(plan: Plan, init: Tensor, noise: Tensor, extra_noise: float = 0.0) -> Tensor:
    """The x at the plan's first level: the clean latent `init`, noised; `extra_noise` adds more of the same noise."""
    noised = init + noise * (plan.noise_sigma + extra_noise)
    if plan.family == "timestep":
        return noised * (_vp_scale(plan.sigmas) / math.hypot(1, plan.noise_sigma))
    return noised


def _levels(table: NoiseTable, sampler: Sampler, scheduler: str, steps: int) -> tuple[float, ...]:
    if sampler.family == "timestep":
        return tuple(timestep_sigmas(table, steps))
    schedule = schedule_of(effective_scheduler(sampler, scheduler))
    if not sampler.discard_next_to_last_sigma:
        return tuple(schedule(table, steps))
    sigmas = schedule(table, steps + 1)
    return (*sigmas[:-2], sigmas[-1])


def _vp_scale(sigmas: Sequence[float]) -> float:
    """What turns a unit-variance latent into x at the first level; with no levels left it stays as it is."""
    return math.hypot(1, sigmas[0]) if sigmas else 1.0
