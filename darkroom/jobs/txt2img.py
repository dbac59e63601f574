"""From noise to a picture. Knows the order of a job's passes; knows nothing of networks, batches or other jobs."""

from collections.abc import Generator

import torch

from darkroom.jobs.conditioning import Prompts
from darkroom.jobs.guidance import Sampled
from darkroom.jobs.hires import hires_fix
from darkroom.jobs.image_conditioning import blank_conditioning
from darkroom.jobs.ops import Answer, Op, Program
from darkroom.jobs.passes import Pass, finished, image_noise, knobs, sample
from darkroom.jobs.spec import JobSpec
from darkroom.sampling.names import get_sampler
from darkroom.sampling.plan import begin_txt2img, plan_txt2img
from darkroom.sampling.samplers import walk
from darkroom.sampling.tables import noise_table


def txt2img(spec: JobSpec, index: int, device: torch.device) -> Program:
    """One picture of a txt2img job. A first pass that is cut short is the result: there is no second one then."""
    hires = spec.hires
    if hires and hires.picture is not None:
        return (yield from hires_fix(spec, hires, index, hires.picture, device))
    sampled = yield from first_pass(spec, index, device)
    if hires and not sampled.interrupted:
        return (yield from hires_fix(spec, hires, index, sampled, device))
    return (yield from finished(sampled.model, sampled.latent))


def first_pass(spec: JobSpec, index: int, device: torch.device) -> Generator[Op, Answer, Sampled]:
    """The pass that starts from noise alone."""
    sampler = get_sampler(spec.sampler)
    table = noise_table(spec.sampling, sampler, spec.traits.training, spec.latent_size)
    plan = plan_txt2img(table, sampler, spec.scheduler, spec.steps, spec.sampling)
    noise = image_noise(spec, index, plan, device)
    steps = walk(sampler, plan, begin_txt2img(plan, noise.initial), noise, knobs(spec, sampler))
    image = yield from blank_conditioning(spec.model, (spec.height, spec.width), device)
    only = Pass(
        model=spec.model,
        prompts=Prompts(positive=spec.prompt, negative=spec.negative_prompt),
        table=table,
        sampler=sampler,
        plan=plan,
        steps=spec.steps,
        image=image,
    )
    return (yield from sample(spec, only, steps))
