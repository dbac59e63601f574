"""One sampling pass: which prompts, which sampler, which levels, whose noise. A job makes one or two of them.

Knows how a pass is put together; knows nothing of where its first latent comes from.
"""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.jobs.conditioning import Prompts, conditioning
from darkroom.jobs.guidance import Guidance, Sampled, guided
from darkroom.jobs.ops import Answer, Decode, Op, Program
from darkroom.jobs.spec import JobSpec, Model, Picture
from darkroom.sampling.names import Sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.plan import Plan
from darkroom.sampling.schedules import NoiseTable
from darkroom.sampling.steps import Knobs, Steps

LATENT_CHANNELS = 4


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pass:
    """A pass of a job: `second` is the larger one of a hires job, `steps` those that prompt editing counts.

    `image` `[C', H/8, W/8]` is what inpainting, depth and editing models see beside the latent.
    """

    model: Model
    prompts: Prompts
    table: NoiseTable
    sampler: Sampler
    plan: Plan
    steps: int
    second: bool = False
    image: Tensor | None = None


def sample(spec: JobSpec, one: Pass, steps: Steps) -> Generator[Op, Answer, Sampled]:
    """Run a sampler's steps to their end under the pass's prompts."""
    order = 2 if one.sampler.second_order else 1
    # A1111: prompt editing counts the steps that were asked for, also where img2img makes fewer.
    prompts = yield from conditioning(spec, one.model, one.prompts, one.steps * order)
    guidance = Guidance(
        model=one.model,
        table=one.table,
        prompts=prompts,
        scale=spec.cfg_scale,
        calls=one.plan.steps * order,
        order=order,
        image=one.image,
    )
    return (yield from guided(steps, guidance))


def decode(model: Model, latent: Tensor) -> Program:
    """The pixels of a latent."""
    picture: Picture = yield Decode(model=model, latent=latent)
    return picture


def image_noise(
    spec: JobSpec, index: int, plan: Plan, device: torch.device, size: tuple[int, int] | None = None
) -> ImageNoise:
    """Everything random about picture `index`; nothing of it depends on the other pictures.

    `size` is (height, width) of the latent, the job's own if not given.
    """
    return ImageNoise(
        spec.seeds[index],
        (LATENT_CHANNELS, *(size or spec.latent_size)),
        subseed=spec.subseeds[index],
        subseed_strength=spec.subseed_strength,
        seed_resize_from=spec.seed_resize_from,
        seed_delta=spec.seed_delta,
        source=spec.noise_source,
        device=device,
        sigma_range=plan.sigma_range,
    )


def knobs(spec: JobSpec, sampler: Sampler) -> Knobs:
    """The request's numbers for the sampler."""
    return Knobs(
        eta=sampler.default_eta if spec.eta is None else spec.eta,
        s_churn=spec.s_churn,
        s_tmin=spec.s_tmin,
        s_tmax=spec.s_tmax,
        s_noise=spec.s_noise,
    )
