"""The second, larger pass of a job: what the first one made is enlarged, noised part of the way and drawn again.

Knows the order of the work between the passes; knows nothing of networks, batches or other jobs.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from darkroom.jobs.conditioning import Prompts
from darkroom.jobs.guidance import Sampled
from darkroom.jobs.image_conditioning import as_pixels, blank_conditioning, picture_conditioning
from darkroom.jobs.latent_modes import LATENT_MODES, LatentMode
from darkroom.jobs.ops import Answer, Aside, EncodeImage, Op, Program, Upscale
from darkroom.jobs.passes import Pass, decode, image_noise, knobs, sample
from darkroom.jobs.spec import Hires, JobSpec, Model, Picture
from darkroom.sampling.names import get_sampler
from darkroom.sampling.plan import begin_img2img, plan_img2img
from darkroom.sampling.samplers import walk
from darkroom.sampling.tables import noise_table

BEFORE = "-before-highres-fix"
"""What ends the names of files that the first pass's pictures are saved in."""

First = Sampled | Picture
"""What the first pass came to, or the picture that stands in for it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Enlarged:
    """What the second pass starts from: the clean latent `[C, h, w]`, not yet cropped, and what it was encoded from, if
    it was.
    """

    latent: Tensor
    picture: Picture | None = None


def hires_fix(spec: JobSpec, hires: Hires, index: int, first: First, device: torch.device) -> Program:
    """The larger picture. All randomness starts anew with the picture's seed, at the larger size."""
    model = second_model(spec, hires)
    enlarged = yield from enlarge(spec, hires, first)
    clean = cropped(enlarged.latent, hires.crop)
    size = clean.shape[-2], clean.shape[-1]
    sampler = get_sampler(hires.sampler)
    table, strength = noise_table(spec.sampling, sampler, hires.traits.training, size), hires.denoising_strength
    # Every step that was asked for is made, of a schedule that is so much longer.
    plan = plan_img2img(table, sampler, hires.scheduler, hires.steps, strength, True, spec.sampling)
    noise = image_noise(spec, index, plan, device, tuple(clean.shape))
    x = begin_img2img(plan, clean, noise.initial, hires.extra_noise)
    steps = walk(sampler, plan, x, noise, replace(knobs(spec, sampler), eta=hires.eta))
    image = yield from seen_beside(spec, model, enlarged, device)
    second = Pass(
        model=model,
        prompts=Prompts(positive=hires.prompt, negative=hires.negative_prompt),
        table=table,
        sampler=sampler,
        plan=plan,
        steps=hires.steps,
        second=True,
        # A1111: the size before anything is cut off.
        size=(hires.size[1], hires.size[0]),
        image=None if image is None else cropped(image, hires.crop),
        clean=clean,
    )
    sampled = yield from sample(spec, second, steps)
    return (yield from decode(sampled.model, sampled.latent))


def second_model(spec: JobSpec, hires: Hires) -> Model:
    """What answers the questions of the second pass."""
    return replace(
        spec.model,
        checkpoint=hires.checkpoint,
        traits=hires.traits,
        vae=hires.vae,
        adapters=hires.adapters,
        token_merging=hires.token_merging,
    )


def enlarge(spec: JobSpec, hires: Hires, first: First) -> Generator[Op, Answer, Enlarged]:
    """Bring the first pass's result to the second one's size.

    A latent mode never leaves latent space; an upscaler works on the 8-bit picture, which the second pass's own model
    then encodes.
    """
    mode = LATENT_MODES.get(hires.upscaler)
    if mode is not None:
        if hires.keeps_first and isinstance(first, Sampled):
            yield Aside(BEFORE, (yield from decode(first.model, first.latent)))
        latent = first.latent if isinstance(first, Sampled) else (yield EncodeImage(model=spec.model, picture=first))
        return Enlarged(latent=stretched(latent, hires.size, mode))
    small = (yield from decode(first.model, first.latent)) if isinstance(first, Sampled) else first
    if hires.keeps_first and isinstance(first, Sampled):
        yield Aside(BEFORE, small)
    picture: Picture = yield Upscale(
        model=spec.model, upscaler=hires.upscaler, picture=small, size=hires.size, tiles=hires.tiles
    )
    latent = yield EncodeImage(model=second_model(spec, hires), picture=picture)
    return Enlarged(latent=latent, picture=picture)


def stretched(latent: Tensor, size: tuple[int, int], mode: LatentMode) -> Tensor:
    """The latent `[C, h, w]` of a picture as large as `size` (width, height, in pixels)."""
    width, height = size
    target = (height // 8, width // 8)
    return interpolate(latent[None], target, mode=mode.interpolation, antialias=mode.antialias)[0]


def cropped(latent: Tensor, crop: tuple[int, int]) -> Tensor:
    """The latent `[C, h, w]` less `crop` (columns, rows), evenly on both sides; an odd one goes at the far side."""
    columns, rows = crop
    height, width = latent.shape[-2:]
    return latent[:, rows // 2 : height - (rows + 1) // 2, columns // 2 : width - (columns + 1) // 2]


def seen_beside(
    spec: JobSpec, model: Model, enlarged: Enlarged, device: torch.device
) -> Generator[Op, Answer, Tensor | None]:
    """What the checkpoint sees beside the latent `[C', h, w]`, before cropping; None for most checkpoints.

    A1111: an enlarged picture is shown with levels of 0..1 where -1..1 is meant, an enlarged latent only where the mask
    does not hide all of it.
    """
    if model.traits.conditioning == "none":
        return None
    if enlarged.picture is not None:
        return (yield from picture_conditioning(model, _dimmed(enlarged.picture, device), None, spec.mask_weight))
    if spec.mask_weight < 1:
        shown = yield from decode(model, enlarged.latent)
        return (yield from picture_conditioning(model, as_pixels(shown, device), None, spec.mask_weight))
    height, width = enlarged.latent.shape[-2:]
    return (yield from blank_conditioning(model, (height * 8, width * 8), device))


def _dimmed(picture: Picture, device: torch.device) -> Tensor:
    return (as_pixels(picture, device) + 1) / 2
