"""From a picture, noised part of the way, to another; with a mask only under it.

Knows the order of a job's passes; knows nothing of networks, batches or other jobs.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darkroom.jobs.conditioning import Prompts
from darkroom.jobs.ops import EncodeImage, Program
from darkroom.jobs.passes import LATENT_CHANNELS, Pass, decode, image_noise, knobs, sample
from darkroom.jobs.spec import InitImage, JobSpec
from darkroom.sampling import filters
from darkroom.sampling.names import get_sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.plan import begin_img2img, plan_img2img
from darkroom.sampling.samplers import solver_of
from darkroom.sampling.schedules import NoiseTable


def img2img(spec: JobSpec, index: int, device: torch.device) -> Program:
    """One picture of an img2img job."""
    init = spec.init
    assert init is not None, "an img2img job has a picture to start from"
    table, sampler = NoiseTable.scaled_linear(), get_sampler(spec.sampler)
    plan = plan_img2img(table, sampler, spec.scheduler, spec.steps, init.denoising_strength, init.fix_steps)
    noise = image_noise(spec, index, plan, device)
    position = index % spec.batch_size
    picture = init.pictures[position % len(init.pictures)]
    encoded: Tensor = yield EncodeImage(model=spec.model, picture=picture)
    clean = fitted(encoded, spec.latent_size)
    mask = None if init.latent_mask is None else torch.from_numpy(init.latent_mask).to(device)
    if mask is not None:
        clean = filled(clean, mask, init, seed=spec.seeds[position], spec=spec)

    x = begin_img2img(plan, clean, noise.initial * init.noise_multiplier, init.extra_noise)
    steps = solver_of(sampler)(x, plan.sigmas, noise, knobs(spec, sampler))
    if mask is not None:
        steps = filters.repaint(steps, clean, mask, sampler.family)
    only = Pass(
        model=spec.model,
        prompts=Prompts(positive=spec.prompt, negative=spec.negative_prompt),
        table=table,
        sampler=sampler,
        plan=plan,
        steps=spec.steps,
    )
    sampled = yield from sample(spec, only, steps)
    latent = sampled.latent if mask is None else filters.blend(sampled.latent, clean, mask)
    return (yield from decode(spec.model, latent))


def fitted(latent: Tensor, size: tuple[int, int]) -> Tensor:
    """The latent `[C, h, w]` stretched to the job's size, for a picture that was not resized before it was encoded."""
    if tuple(latent.shape[-2:]) == size:
        return latent
    return interpolate(latent[None], size, mode="bilinear", align_corners=False)[0]


def filled(clean: Tensor, mask: Tensor, init: InitImage, *, seed: int, spec: JobSpec) -> Tensor:
    """The clean latent with the masked content that the request asked for, where that is a matter of latents."""
    match init.fill:
        case "latent noise":
            # A1111: the first noise of the first batch's seeds, without variation seeds, in every batch.
            noise = ImageNoise(
                seed, (LATENT_CHANNELS, *spec.latent_size), source=spec.noise_source, device=clean.device
            ).initial
            return filters.blend(noise, clean, mask)
        case "latent nothing":
            return clean * (1 - mask)
        case "original" | "fill":
            return clean
