"""Whole jobs as straight code: each program makes one picture of a job by asking the engine its questions.

Knows the order of a job's passes; knows nothing of networks, batches or other jobs.
"""

from collections.abc import Generator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darkroom.jobs.conditioning import conditioning
from darkroom.jobs.guidance import Guidance, guided
from darkroom.jobs.ops import Answer, Decode, EncodeImage, Op, Program
from darkroom.jobs.spec import InitImage, JobSpec, Picture
from darkroom.sampling import filters
from darkroom.sampling.names import Sampler, get_sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.plan import Plan, begin_img2img, begin_txt2img, plan_img2img, plan_txt2img
from darkroom.sampling.samplers import solver_of
from darkroom.sampling.schedules import NoiseTable
from darkroom.sampling.steps import Knobs

LATENT_CHANNELS = 4


def program(spec: JobSpec, index: int, device: torch.device) -> Program:
    """The program that makes picture `index` of the job, with its latents on `device`."""
    match spec.kind:
        case "txt2img":
            return txt2img(spec, index, device)
        case "img2img":
            return img2img(spec, index, device)


def txt2img(spec: JobSpec, index: int, device: torch.device) -> Program:
    """From noise to a picture."""
    table, sampler = NoiseTable.scaled_linear(), get_sampler(spec.sampler)
    plan = plan_txt2img(table, sampler, spec.scheduler, spec.steps)
    noise = image_noise(spec, index, plan, device)
    steps = solver_of(sampler)(begin_txt2img(plan, noise.initial), plan.sigmas, noise, knobs(spec, sampler))
    sampled = yield from guided(steps, (yield from guidance(spec, table, sampler, plan)))
    return (yield from decode(spec, sampled.latent))


def img2img(spec: JobSpec, index: int, device: torch.device) -> Program:
    """From a picture, noised part of the way, to another; with a mask only under it."""
    init = spec.init
    assert init is not None, "an img2img job has a picture to start from"
    table, sampler = NoiseTable.scaled_linear(), get_sampler(spec.sampler)
    plan = plan_img2img(table, sampler, spec.scheduler, spec.steps, init.denoising_strength, init.fix_steps)
    noise = image_noise(spec, index, plan, device)
    position = index % spec.batch_size
    picture = init.pictures[position % len(init.pictures)]
    encoded: Tensor = yield EncodeImage(checkpoint=spec.checkpoint, picture=picture)
    clean = fitted(encoded, spec.latent_size)
    mask = None if init.latent_mask is None else torch.from_numpy(init.latent_mask).to(device)
    if mask is not None:
        clean = filled(clean, mask, init, seed=spec.seeds[position], spec=spec)

    x = begin_img2img(plan, clean, noise.initial * init.noise_multiplier, init.extra_noise)
    steps = solver_of(sampler)(x, plan.sigmas, noise, knobs(spec, sampler))
    if mask is not None:
        steps = filters.repaint(steps, clean, mask, sampler.family)
    sampled = yield from guided(steps, (yield from guidance(spec, table, sampler, plan)))
    latent = sampled.latent if mask is None else filters.blend(sampled.latent, clean, mask)
    return (yield from decode(spec, latent))


def guidance(spec: JobSpec, table: NoiseTable, sampler: Sampler, plan: Plan) -> Generator[Op, Answer, Guidance]:
    """Encode both prompts and say how they steer a pass of `plan`."""
    order = 2 if sampler.second_order else 1
    # A1111: prompt editing counts the steps that were asked for, also where img2img makes fewer.
    prompts = yield from conditioning(spec, spec.steps * order)
    return Guidance(
        checkpoint=spec.checkpoint,
        table=table,
        prompts=prompts,
        scale=spec.cfg_scale,
        calls=plan.steps * order,
        order=order,
    )


def decode(spec: JobSpec, latent: Tensor) -> Program:
    """The pixels of a latent."""
    picture: Picture = yield Decode(checkpoint=spec.checkpoint, latent=latent)
    return picture


def image_noise(spec: JobSpec, index: int, plan: Plan, device: torch.device) -> ImageNoise:
    """Everything random about picture `index`; nothing of it depends on the other pictures."""
    return ImageNoise(
        spec.seeds[index],
        (LATENT_CHANNELS, *spec.latent_size),
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
