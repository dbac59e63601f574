"""From a picture, noised part of the way, to another; with a mask only under it.

Knows the order of a job's passes; knows nothing of networks, batches or other jobs.
"""

from collections.abc import Generator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darkroom.jobs.conditioning import Prompts
from darkroom.jobs.image_conditioning import as_pixels, picture_conditioning
from darkroom.jobs.inversion import found_noise
from darkroom.jobs.ops import Answer, EncodeImage, Op, Program
from darkroom.jobs.passes import Pass, finished, image_noise, knobs, sample
from darkroom.jobs.soft_inpainting import cover_of, soft_mix, with_cover
from darkroom.jobs.spec import InitImage, JobSpec, Picture
from darkroom.sampling import filters
from darkroom.sampling.names import Sampler, get_sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.plan import begin_img2img, plan_img2img
from darkroom.sampling.samplers import walk
from darkroom.sampling.steps import Steps
from darkroom.sampling.tables import NoiseTable, noise_table


def img2img(spec: JobSpec, index: int, device: torch.device) -> Program:
    """One picture of an img2img job."""
    init = spec.init
    assert init is not None, "an img2img job has a picture to start from"
    sampler = get_sampler(spec.sampler)
    table = noise_table(spec.sampling, sampler, spec.traits.training, spec.latent_size)
    strength = init.denoising_strength
    plan = plan_img2img(table, sampler, spec.scheduler, spec.steps, strength, init.fix_steps, spec.sampling)
    noise = image_noise(spec, index, plan, device)
    position = index % spec.batch_size
    picture = init.pictures[position % len(init.pictures)]
    encoded: Tensor = yield EncodeImage(model=spec.model, picture=picture)
    clean = fitted(encoded, spec.latent_size)
    mask = None if init.latent_mask is None else torch.from_numpy(init.latent_mask).to(device)
    if mask is not None:
        clean = filled(clean, mask, init, seed=spec.seeds[position], spec=spec)

    image = yield from seen_beside(spec, init, picture, device)
    initial = noise.initial
    if init.inversion:
        initial = yield from found_noise(spec, init.inversion, clean, image, table, initial)
    x = begin_img2img(plan, clean, initial * init.noise_multiplier, init.extra_noise)
    steps = walk(sampler, plan, x, noise, knobs(spec, sampler))
    if mask is not None:
        steps = repainted(steps, init, clean, mask, sampler, table)
    only = Pass(
        model=spec.model,
        prompts=Prompts(positive=spec.prompt, negative=spec.negative_prompt),
        table=table,
        sampler=sampler,
        plan=plan,
        steps=spec.steps,
        image=image,
        clean=clean,
    )
    sampled = yield from sample(spec, only, steps)
    latent = sampled.latent if mask is None or init.soft else filters.blend(sampled.latent, clean, mask)
    drawn = yield from finished(sampled.model, latent)
    return with_cover(drawn, cover_of(init.soft, latent, clean, mask)) if init.soft and mask is not None else drawn


def repainted(steps: Steps, init: InitImage, clean: Tensor, mask: Tensor, sampler: Sampler, table: NoiseTable) -> Steps:
    """A sampler's steps kept to the mask `[H/8, W/8]`, by its edge or by its grey levels."""
    if init.soft is None:
        return filters.repaint(steps, clean, mask, sampler.family)
    return filters.repaint_mixed(steps, soft_mix(init.soft, clean, mask, sampler.family, table), sampler.family)


def seen_beside(
    spec: JobSpec, init: InitImage, picture: Picture, device: torch.device
) -> Generator[Op, Answer, Tensor | None]:
    """What the checkpoint sees beside the latent `[C', H/8, W/8]`; None for most checkpoints."""
    covered = None if init.mask is None else torch.tensor(init.mask, device=device).float() / 255
    if covered is not None and spec.traits.family == "sdxl":
        covered = covered.round()  # A1111: also where the sampler's mask keeps its grey levels
    image = yield from picture_conditioning(spec.model, as_pixels(picture, device), covered, spec.mask_weight)
    return None if image is None else fitted(image, spec.latent_size)


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
                seed, (spec.traits.latent_channels, *spec.latent_size), source=spec.noise_source, device=clean.device
            ).initial
            return filters.blend(noise, clean, mask)
        case "latent nothing":
            return clean * (1 - mask)
        case "original" | "fill":
            return clean
