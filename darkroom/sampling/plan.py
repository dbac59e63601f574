"""From a request's numbers to noise levels and a starting point: what happens before the first step of a sampler.

Knows the two families of samplers and A1111's rules for img2img strength; nothing of networks or masks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from darkroom.errors import BadRequest
from darkroom.sampling.names import Family, Sampler, effective_scheduler
from darkroom.sampling.options import NO_OPTIONS, SamplingOptions
from darkroom.sampling.schedules import schedule_of, spread, timestep_sigmas, unipc_sigmas
from darkroom.sampling.tables import NoiseTable

MAX_LEVELS = 10_000
"""The longest schedule that a tiny strength may ask for; tables have a tenth as many levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The levels of one pass, descending: `full` is the whole schedule, `sigmas` what the sampler is given.

    `noise_sigma` is the level that a picture is noised to. A1111: it need not be the first of `sigmas`; for the
    timestep family it is one above. `shared_path`: the images of a batch share one Brownian path. With `flow` noise
    displaces the picture instead of being added to it.
    """

    family: Family
    full: tuple[float, ...]
    sigmas: tuple[float, ...]
    noise_sigma: float
    shared_path: bool = False
    flow: bool = False

    @property
    def steps(self) -> int:
        """How many steps the sampler makes."""
        return max(len(self.sigmas) - 1, 0)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The ends of the Brownian path: lowest positive and highest level of the whole schedule.

        A1111: a path that the batch shares spans only what the sampler is given.
        """
        levels = self.sigmas if self.shared_path and self.sigmas else self.full
        return min(sigma for sigma in levels if sigma > 0), max(levels)


def plan_txt2img(
    table: NoiseTable, sampler: Sampler, scheduler: str, steps: int, options: SamplingOptions = NO_OPTIONS
) -> Plan:
    """The levels of `steps` >= 1 steps from pure noise; `scheduler` is a label, ignored by the timestep family.

    Raises BadRequest for options that allow no such levels.
    """
    full = _levels(table, sampler, scheduler, steps, options)
    sigmas = full
    if sampler.chooses_levels:
        sigmas = tuple(spread(table.sigma_max, table.sigma_min, steps))
    elif sampler.table == "continuous":
        sigmas = _unipc_levels(table, len(full), table.last_timestep, options)
    return Plan(
        family=sampler.family,
        full=full,
        sigmas=sigmas,
        noise_sigma=math.hypot(1, full[0]) if options.sgm_noise_multiplier and not table.flow else full[0],
        shared_path=options.shared_brownian_path,
        flow=table.flow,
    )


def plan_img2img(
    table: NoiseTable,
    sampler: Sampler,
    scheduler: str,
    steps: int,
    strength: float,
    fix_steps: bool = False,
    options: SamplingOptions = NO_OPTIONS,
) -> Plan:
    """The levels from a noised picture; `strength` in 0..1 says how much of the schedule is walked.

    Runs int(strength * steps) + 1 steps, or with `fix_steps` exactly `steps` of a schedule that is so much longer.
    Raises BadRequest for options that allow no such levels.
    """
    total, kept = img2img_steps(steps, strength, fix_steps)
    full = _levels(table, sampler, scheduler, total, options)
    if sampler.family == "timestep":
        start = max(len(full) - kept, 1)
        sigmas, noise_sigma = full[start:], full[start - 1]
    else:
        sigmas = full[min(total - kept - 1, len(full) - 2) :]
        noise_sigma = sigmas[0]
    if sampler.chooses_levels:
        sigmas = tuple(spread(sigmas[0], sigmas[-2], len(sigmas) - 1))
    elif sampler.table == "continuous":
        first = table.timestep_of(sigmas[0]) if sigmas else 0
        sigmas = _unipc_levels(table, len(sigmas), first, options)
    return Plan(
        family=sampler.family,
        full=full,
        sigmas=sigmas,
        noise_sigma=noise_sigma,
        shared_path=options.shared_brownian_path,
        flow=table.flow,
    )


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
    return noise * plan.noise_sigma


def begin_img2img(plan: Plan, init: Tensor, noise: Tensor, extra_noise: float = 0.0) -> Tensor:
    """The x at the plan's first level: the clean latent `init`, noised; `extra_noise` adds more of the same noise."""
    kept = 1 - plan.noise_sigma if plan.flow else 1
    noised = init * kept + noise * (plan.noise_sigma + extra_noise)
    if plan.family == "timestep":
        return noised * (_vp_scale(plan.sigmas) / math.hypot(1, plan.noise_sigma))
    return noised


def _levels(
    table: NoiseTable, sampler: Sampler, scheduler: str, steps: int, options: SamplingOptions
) -> tuple[float, ...]:
    discard = sampler.discard_next_to_last_sigma or options.discard_penultimate
    if sampler.family == "timestep":
        # A1111: a schedule of one step more, of which nothing is left out.
        return tuple(timestep_sigmas(table, steps + discard))
    sigmas = schedule_of(effective_scheduler(sampler, scheduler))(table, steps + discard, options)
    return (*sigmas[:-2], sigmas[-1]) if discard else tuple(sigmas)


def _unipc_levels(table: NoiseTable, steps: int, first: float, options: SamplingOptions) -> tuple[float, ...]:
    if steps == 0:
        return ()
    if options.unipc_order > steps:
        raise BadRequest("uni_pc_order", options.unipc_order, f"at most the {steps} steps that UniPC makes here")
    return tuple(unipc_sigmas(table, steps, first, options.unipc_skip_type))


def _vp_scale(sigmas: Sequence[float]) -> float:
    """What turns a unit-variance latent into x at the first level; with no levels left it stays as it is."""
    return math.hypot(1, sigmas[0]) if sigmas else 1.0
