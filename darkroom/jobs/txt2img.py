"""From noise to a picture. Knows the order of a job's passes; knows nothing of networks, batches or other jobs."""

import torch

from darkroom.jobs.conditioning import Prompts
from darkroom.jobs.ops import Program
from darkroom.jobs.passes import Pass, decode, image_noise, knobs, sample
from darkroom.jobs.spec import JobSpec
from darkroom.sampling.names import get_sampler
from darkroom.sampling.plan import begin_txt2img, plan_txt2img
from darkroom.sampling.samplers import solver_of
from darkroom.sampling.schedules import NoiseTable


def txt2img(spec: JobSpec, index: int, device: torch.device) -> Program:
    """One picture of a txt2img job."""
    table, sampler = NoiseTable.scaled_linear(), get_sampler(spec.sampler)
    plan = plan_txt2img(table, sampler, spec.scheduler, spec.steps)
    noise = image_noise(spec, index, plan, device)
    steps = solver_of(sampler)(begin_txt2img(plan, noise.initial), plan.sigmas, noise, knobs(spec, sampler))
    first = Pass(
        model=spec.model,
        prompts=Prompts(positive=spec.prompt, negative=spec.negative_prompt),
        table=table,
        sampler=sampler,
        plan=plan,
        steps=spec.steps,
    )
    sampled = yield from sample(spec, first, steps)
    return (yield from decode(spec.model, sampled.latent))
