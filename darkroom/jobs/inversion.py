"""Starts an img2img job from the noise that its picture would have come from, instead of from random noise.

Knows the order of questions; knows nothing of networks.
"""

import math
from collections.abc import Generator
from dataclasses import replace

from torch import Tensor

from darkroom.jobs.conditioning import Prompts
from darkroom.jobs.ops import Answer, Op
from darkroom.jobs.passes import Pass, sample
from darkroom.jobs.spec import Inversion, JobSpec
from darkroom.sampling.inversion import inverted_euler
from darkroom.sampling.names import AUTOMATIC, get_sampler
from darkroom.sampling.plan import plan_txt2img
from darkroom.sampling.tables import NoiseTable


def found_noise(
    spec: JobSpec, inversion: Inversion, clean: Tensor, image: Tensor | None, table: NoiseTable, random: Tensor
) -> Generator[Op, Answer, Tensor]:
    """The noise to begin with `[C, H/8, W/8]`, in place of `random`, part of which is mixed in.

    From the first level s of the plain schedule, `clean` noised with it is s times the found noise, without `clean`.
    """
    euler = get_sampler("Euler")
    plan = plan_txt2img(table, euler, AUTOMATIC, inversion.steps)
    search = Pass(
        model=spec.model,
        prompts=Prompts(positive=inversion.prompt, negative=inversion.negative_prompt),
        table=table,
        sampler=euler,
        plan=plan,
        steps=inversion.steps,
        image=image,
        clean=clean,
    )
    levels = (0.0, *(sigma for sigma in reversed(plan.full) if sigma > 0))
    alone = replace(spec, init=None, refiner=None, cfg_scale=inversion.cfg_scale, steps=inversion.steps)
    found = (yield from sample(alone, search, inverted_euler(clean, levels, adjusted=inversion.adjusted))).latent
    share = inversion.randomness
    mixed = ((1 - share) * found + share * random) / math.hypot(share, 1 - share)
    return mixed - clean / plan.full[0]
