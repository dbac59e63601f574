"""What a request says about guidance: when the negative prompt is asked, who refines, how prompts are read.

Knows no torch; what of it came to pass is told by the job itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from darkroom.api.checkpoints import closest_checkpoint
from darkroom.api.models import Generation
from darkroom.api.networks import Shelf, choose_vae
from darkroom.api.sampling import as_sent
from darkroom.errors import BadRequest
from darkroom.jobs.spec import CheckpointInfo, GuidanceOptions, Hires, Refiner
from darkroom.options.values import OptionValues
from darkroom.prompt import composition
from darkroom.prompt.attention import find_malformed_weight, has_attention
from darkroom.prompt.grammar import cut_networks
from darkroom.prompt.schedule import Timeline, schedule
from darkroom.sampling.names import Sampler, find_sampler

_NO_REFINER = frozenset({"", "None", "none"})


def guidance_options(wire: Generation, values: OptionValues, checkpoint: CheckpointInfo) -> GuidanceOptions:
    """How the job is guided. Raises BadRequest for a composed prompt where the picture guides as well."""
    scale = getattr(wire, "image_cfg_scale", None) if checkpoint.traits.conditioning == "edit" else None
    if scale not in (None, 1) and len(composition.split(cut_networks(wire.prompt or "")[0])) > 1:
        raise BadRequest("image_cfg_scale", scale, "1, or a prompt without AND, on an InstructPix2Pix checkpoint")
    sent = wire.override_settings or {}
    return GuidanceOptions(
        s_min_uncond=as_sent("s_min_uncond", values, sent) if wire.s_min_uncond is None else wire.s_min_uncond,
        s_min_uncond_all=values.s_min_uncond_all,
        skip_early=as_sent("skip_early_cond", values, sent),
        pad=values.pad_cond_uncond,
        pad_v0=values.pad_cond_uncond_v0,
        image_scale=scale,
        deep_cache=values.deepcache_interval,
    )


def choose_refiner(
    wire: Generation,
    values: OptionValues,
    checkpoint: CheckpointInfo,
    checkpoints: Sequence[CheckpointInfo],
    shelf: Shelf,
) -> Refiner | None:
    """The checkpoint that a request wants to take over. Raises UnknownName, BadRequest."""
    name = wire.refiner_checkpoint
    if name is None or name in _NO_REFINER:
        return None
    chosen = closest_checkpoint(checkpoints, "refiner_checkpoint", name)
    if chosen.traits.conditioning not in ("none", checkpoint.traits.conditioning):
        raise BadRequest("refiner_checkpoint", name, "a checkpoint that sees no more than the first one does")
    if chosen.traits.latent_channels != checkpoint.traits.latent_channels:
        raise BadRequest("refiner_checkpoint", name, "a checkpoint whose latents have as many channels")
    return Refiner(
        checkpoint=chosen.key,
        title=chosen.short_title,
        traits=chosen.traits,
        vae=choose_vae(chosen, values, shelf).name,
        switch_at=wire.refiner_switch_at,
        by_steps=values.refiner_switch_by_sample_steps,
        passes=values.hires_fix_refiner_pass,
    )


def check_prompt(field: str, prompt: str, values: OptionValues) -> None:
    """Refuse a weight that looks like a number and is none. Raises BadRequest. A1111: such a request fails inside."""
    if values.emphasis == "None" or values.use_old_emphasis_implementation:
        return
    malformed = find_malformed_weight(prompt)
    if malformed is not None:
        raise BadRequest(field, malformed, "a weight must be a number, as in (text:1.2)")


def editing_notes(
    values: OptionValues, prompts: Sequence[str], sampler: Sampler, steps: int, hires: Hires | None
) -> Iterator[tuple[str, object]]:
    """The generation text's entry for the old rules of prompt editing. A1111: only where they make a difference."""
    if not values.use_old_scheduling:
        return
    first = calls(sampler, steps)
    differing = any(_differs(text, first, None) for text in prompts)
    second = find_sampler(hires.sampler) if hires else None
    if hires and second:
        later = calls(second, hires.steps)
        differing |= any(_differs(text, later, first) for text in (hires.prompt, hires.negative_prompt))
    if differing:
        yield "Old prompt editing timelines", True


def emphasis_notes(
    values: OptionValues, passes: Sequence[tuple[str, str]], timeline: Timeline
) -> Iterator[tuple[str, object]]:
    """The generation text's entry for the way of emphasis. A1111: only where it matters to a text that is encoded."""
    if values.emphasis == "Original" or values.use_old_emphasis_implementation:
        return
    texts = [text for prompts in passes for text in _pieces(*prompts)]
    if has_attention(entry.text for text in texts for entry in schedule(text, timeline)):
        yield "Emphasis", values.emphasis


def sampling_notes(values: OptionValues) -> Iterator[tuple[str, object]]:
    """Entries of the generation text that only repeat an option. A1111: this one even without a refiner."""
    if values.refiner_switch_by_sample_steps:
        yield "Refiner switch by sampling steps", True


def calls(sampler: Sampler, steps: int) -> int:
    """How many model calls a pass of so many steps is expected to make."""
    return steps * 2 if sampler.second_order else steps


def _differs(text: str, expected: int, first_pass: int | None) -> bool:
    shown, _ = cut_networks(text)
    new = Timeline(steps=expected, first_pass=first_pass)
    return schedule(shown, replace(new, old_rules=True)) != schedule(shown, new)


def _pieces(positive: str, negative: str) -> Iterator[str]:
    """What is encoded of two prompts, before prompt editing."""
    yield from (part.text for part in composition.split(cut_networks(positive)[0]))
    yield negative
