"""One sampling pass: which prompts, which sampler, which levels, whose noise. A job makes one or two of them.

Knows how a pass is put together; knows nothing of where its first latent comes from.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from darkroom.jobs.conditioning import Prompts, conditioning
from darkroom.jobs.guidance import Guidance, Handover, Sampled, guided
from darkroom.jobs.ops import Answer, Decode, Note, Op, Program
from darkroom.jobs.spec import JobSpec, Model, Picture, Refiner
from darkroom.prompt.schedule import Timeline
from darkroom.sampling.course import course_of
from darkroom.sampling.filters import consistency
from darkroom.sampling.names import Sampler, get_sampler
from darkroom.sampling.noise import ImageNoise, SharedPath
from darkroom.sampling.plan import Plan, img2img_steps
from darkroom.sampling.steps import Knobs, Steps
from darkroom.sampling.tables import NoiseTable, noise_table


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pass:
    """A pass of a job: `second` is the larger one of a hires job, `steps` those that prompt editing counts.

    `size` is the (height, width) in pixels that some models are told, None the job's own. `image` `[C', H/8, W/8]` is
    what inpainting, depth and editing models see beside the latent. `clean` is the latent that was noised, None where
    the pass begins with noise alone.
    """

    model: Model
    prompts: Prompts
    table: NoiseTable
    sampler: Sampler
    plan: Plan
    steps: int
    second: bool = False
    size: tuple[int, int] | None = None
    image: Tensor | None = None
    clean: Tensor | None = None


def sample(spec: JobSpec, one: Pass, steps: Steps) -> Generator[Op, Answer, Sampled]:
    """Run a sampler's steps to their end under the pass's prompts. Its model is the refiner's from where that takes
    over.
    """
    guidance = yield from _guidance(spec, one, _text_model(spec, one))
    if one.sampler.table == "consistency":
        steps = consistency(steps, one.table)
    sampled = yield from guided(steps, guidance, _handover(spec, one), one.clean)
    if guidance.prompts.padding:
        yield Note(guidance.prompts.padding, True)
    return sampled


def timeline(spec: JobSpec, one: Pass) -> Timeline:
    """The calls that prompt editing counts. A1111: the steps that were asked for, also where img2img makes fewer."""
    return Timeline(
        steps=one.steps * _order(one.sampler),
        first_pass=spec.steps * _order(get_sampler(spec.sampler)) if one.second else None,
        old_rules=spec.old_prompt_editing,
    )


def _text_model(spec: JobSpec, one: Pass) -> Model:
    """What encodes the prompts as the pass begins."""
    if one.second and spec.hires and spec.hires.early_texts:
        return replace(one.model, adapters=spec.adapters)
    return one.model


def _guidance(spec: JobSpec, one: Pass, text_model: Model) -> Generator[Op, Answer, Guidance]:
    order = _order(one.sampler)
    return Guidance(
        model=one.model,
        table=one.table,
        prompts=(yield from conditioning(spec, text_model, one.prompts, timeline(spec, one), one.size)),
        scale=spec.cfg_scale / one.sampler.guidance_divisor,
        course=course_of(one.sampler, one.plan.sigmas, knobs(spec, one.sampler), _expected_steps(spec, one)),
        part=spec.passes - 1 if one.second else 0,
        expected=_expected_steps(spec, one) * order,
        family=one.sampler.family,
        options=spec.guidance,
        image=one.image,
    )


def _order(sampler: Sampler) -> int:
    """How many model calls a step is counted as."""
    return 2 if sampler.second_order else 1


def _expected_steps(spec: JobSpec, one: Pass) -> int:
    """The steps that shares of a pass are counted by. A1111: those asked for, whatever the schedule makes of them."""
    if spec.init is None:
        return one.steps
    _, kept = img2img_steps(spec.steps, spec.init.denoising_strength, spec.init.fix_steps)
    return kept + 1


def _handover(spec: JobSpec, one: Pass) -> Handover | None:
    """The refiner's turn in this pass, unless it has none or its checkpoint is in use already."""
    refiner = spec.refiner
    if refiner is None or refiner.checkpoint == one.model.checkpoint:
        return None
    left_out = "second pass" if not one.second else "first pass"
    if spec.hires and refiner.passes == left_out:
        return None
    model = replace(one.model, checkpoint=refiner.checkpoint, traits=refiner.traits, vae=refiner.vae)
    image = one.image if refiner.traits.conditioning == one.model.traits.conditioning else None
    training = refiner.traits.training
    alike = training == one.model.traits.training
    table = one.table if alike else noise_table(spec.sampling, one.sampler, training)
    refined = replace(one, model=model, table=table, image=image)
    return Handover(refiner=refiner, notes=_notes(spec, refiner), begin=lambda: _guidance(spec, refined, model))


def _notes(spec: JobSpec, refiner: Refiner) -> tuple[Note, ...]:
    switched = (Note("Refiner", refiner.title), Note("Refiner switch at", refiner.switch_at))
    if spec.hires and refiner.passes != "second pass":
        return (Note("Hires refiner", refiner.passes), *switched)
    return switched


def decode(model: Model, latent: Tensor) -> Program:
    """The pixels of a latent."""
    picture: Picture = yield Decode(model=model, latent=latent)
    return picture


def finished(model: Model, latent: Tensor) -> Program:
    """The picture that a pass without another one behind it comes to, and by what it was decoded.

    A1111: after a second pass nothing is said of that.
    """
    if model.decoder != "Full":
        yield Note("VAE Decoder", model.decoder)
    return (yield from decode(model, latent))


def image_noise(
    spec: JobSpec, index: int, plan: Plan, device: torch.device, shape: tuple[int, ...] | None = None
) -> ImageNoise:
    """Everything random about picture `index`; nothing of it depends on the other pictures, unless that was asked for.

    `shape` is the latent's `[C, h, w]`, that of the first pass if not given.
    """
    position = index % spec.batch_size
    last = spec.seeds[index - position + spec.batch_size - 1]
    shared = SharedPath(seed=last, size=spec.batch_size, position=position)
    return ImageNoise(
        spec.seeds[index],
        shape or (spec.traits.latent_channels, *spec.latent_size),
        subseed=spec.subseeds[index],
        subseed_strength=spec.subseed_strength,
        seed_resize_from=spec.seed_resize_from,
        seed_delta=spec.seed_delta,
        source=spec.noise_source,
        device=device,
        sigma_range=plan.sigma_range,
        shared_path=shared if plan.shared_path else None,
    )


def knobs(spec: JobSpec, sampler: Sampler) -> Knobs:
    """The request's numbers for the sampler."""
    return Knobs(
        eta=sampler.default_eta if spec.eta is None else spec.eta,
        s_churn=spec.s_churn,
        s_tmin=spec.s_tmin,
        s_tmax=spec.s_tmax,
        s_noise=spec.s_noise,
        half_table=spec.sampling.downcast_alphas,
        unipc_variant=spec.sampling.unipc_variant,
        unipc_order=spec.sampling.unipc_order,
        unipc_lower_order_final=spec.sampling.unipc_lower_order_final,
    )
