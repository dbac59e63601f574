"""Guidance: turns a sampler's question into network rows and folds the rows' answers into one x0.

Knows prompts' conditionings, the guidance scale and when another checkpoint takes over; knows nothing of sampling
algorithms or of pictures.
"""

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.jobs.conditioning import Conditioning
from darkroom.jobs.ops import Answer, Cond, Denoise, Interrupted, Kept, Note, Op, Row
from darkroom.jobs.spec import GuidanceOptions, Model, Refiner
from darkroom.sampling.course import Course
from darkroom.sampling.names import Family
from darkroom.sampling.steps import Eval, Steps
from darkroom.sampling.tables import NoiseTable


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Guidance:
    """Classifier-free guidance, u + sum of s * w * (c - u) over the parts of the prompt.

    Ho and Salimans 2022, arXiv:2207.12598, equation 6, composed as Liu et al. 2022, arXiv:2206.01714, equation 11. With
    an `options.image_scale` it is u + s * (c - m) + i * (m - u), where m sees the picture but not the prompt, and u
    neither: Brooks et al. 2023, arXiv:2211.09800, equation 3.

    `course` says how far the sampler has come, `part` which of the job's passes this is: both for people. `expected` is
    how many calls the shares of a pass are counted by. `image` is what some models see beside the latent, `kept` what
    the network found for each row of this pass.
    """

    model: Model
    table: NoiseTable
    prompts: Conditioning
    scale: float
    course: Course
    part: int = 0
    expected: int = 1
    family: Family = "sigma"
    options: GuidanceOptions = field(default_factory=GuidanceOptions)
    image: Tensor | None = None
    kept: dict[int, Kept] = field(default_factory=dict)

    @property
    def edits(self) -> bool:
        """Whether the picture guides as well as the prompt. A1111: an image scale of 1 is ordinary guidance."""
        return self.image is not None and self.options.image_scale not in (None, 1)

    def question(self, asked: Eval, call: int) -> Denoise:
        """The rows of one evaluation: the prompt's parts, then whatever they are to be compared with."""
        rows = [(timed.at(call), self.image) for timed, _ in self.prompts.parts]
        negative = self.prompts.negative.at(call)
        if self.edits:
            assert self.image is not None, "pictures guide only where there is one"
            rows += [(negative, self.image), (negative, torch.zeros_like(self.image))]
        elif self._asks_negative(asked, call):
            rows.append((negative, self.image))
        return self._denoise(asked, call, rows)

    def fold(self, answers: Sequence[Tensor], asked: Eval, call: int) -> Tensor:
        """One guided x0 out of the rows' answers; with `asked.pair` the negative prompt's own is stacked under it.

        Where the negative prompt was not asked, the first part stands in for it. A1111: where it was skipped, the scale
        is 1 as well.
        """
        count = len(self.prompts.parts)
        parts, compared = answers[:count], answers[count:]
        if self.edits:
            with_image, without = compared
            towards = self.scale * (parts[0] - with_image) + self._image_scale * (with_image - without)
            return _answer(without + towards, without, asked)
        negative = compared[0] if compared else parts[0]
        scale = 1.0 if self.skipped(asked, call) else self.scale
        guided = negative
        for part, (_, weight) in zip(parts, self.prompts.parts, strict=True):
            guided = guided + (part - negative) * (weight * scale)
        return _answer(guided, negative, asked)

    def skipped(self, asked: Eval, call: int) -> list[Note]:
        """Why the negative prompt is left out of a question; nothing if it is not.

        A1111: the timestep family compares its timestep's number with the noise level.
        """
        options = self.options
        if self.edits:
            return []
        if options.skip_early and call / self.expected <= options.skip_early:
            return [Note("Skip Early CFG", options.skip_early)]
        level = asked.sigma if self.family == "sigma" else self.table.timestep_of(asked.sigma)
        if (call % 2 == 0 and not options.s_min_uncond_all) or level >= options.s_min_uncond:
            return []
        every = [Note("NGMS all steps", True)] if options.s_min_uncond_all else []
        return [Note("NGMS", options.s_min_uncond), *every]

    def progress(self, asked: Eval, call: int, *, by_steps: bool) -> float:
        """How far the pass is, 0..1: by calls, or by how much of the training noise is gone."""
        if by_steps:
            return call / self.expected
        if self.family == "timestep":
            return (999 - int(self.table.timestep_of(asked.sigma))) / 1000
        return (999 - _nearest(self.table.sigmas, asked.sigma)) / 1000

    @property
    def _image_scale(self) -> float:
        scale = self.options.image_scale
        return 1.0 if scale is None else scale

    def _asks_negative(self, asked: Eval, call: int) -> bool:
        """Not where it was to be skipped, nor where pulls that add up to 1 cancel it out."""
        if self.skipped(asked, call):
            return False
        return asked.pair or sum(self.scale * weight for _, weight in self.prompts.parts) != 1

    def _denoise(self, asked: Eval, call: int, rows: Sequence[tuple[Cond, Tensor | None]]) -> Denoise:
        timestep, v_sigma = self.table.told(asked.sigma), self.table.v_level(asked.sigma)
        kept = [self._kept(place, cond, call) for place, (cond, _) in enumerate(rows)]
        skips = [one is not None and one.features is not None for one in kept]
        return Denoise(
            model=self.model,
            rows=tuple(
                Row(asked.x, asked.sigma, timestep, cond, image, v_sigma, one, is_shallow)
                for (cond, image), one, is_shallow in zip(rows, kept, skips, strict=True)
            ),
            step=self.course.step(asked, call),
            steps=self.course.steps,
            part=self.part,
            combine=partial(self.fold, asked=replace(asked, pair=False), call=call),
        )

    def _kept(self, place: int, cond: Cond, call: int) -> Kept | None:
        """Where the features of the input in this place are kept: empty where they are to be found anew, which they are
        for another text too.
        """
        if self.options.deep_cache <= 1:
            return None
        kept = self.kept.get(place)
        if kept is None or kept.cond is not cond or call % self.options.deep_cache == 0:
            kept = self.kept[place] = Kept(cond)
        return kept


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Handover:
    """How the rest of a pass comes to the refiner's checkpoint: `begin` encodes the prompts for it."""

    refiner: Refiner
    notes: tuple[Note, ...]
    begin: Callable[[], Generator[Op, Answer, Guidance]]

    def is_due(self, guidance: Guidance, asked: Eval, call: int) -> bool:
        """Whether the refiner answers this question already."""
        at = self.refiner.switch_at
        return at is None or guidance.progress(asked, call, by_steps=self.refiner.by_steps) >= at

    def take(self) -> Generator[Op, Answer, Guidance]:
        """Put the change on record and make ready."""
        yield from self.notes
        return (yield from self.begin())


class Sampled(NamedTuple):
    """What sampling came to: a latent, the model that made it, and whether it was cut short (then later passes are
    skipped).
    """

    latent: Tensor
    interrupted: bool
    model: Model


def guided(
    steps: Steps, guidance: Guidance, handover: Handover | None = None, clean: Tensor | None = None
) -> Generator[Op, Answer, Sampled]:
    """Drive a sampler to its end. When interrupted, the last unguided estimate for the first part is the result; before
    there is one, it is `clean`, the latent that the pass began with.

    The refiner goes on with the sampler's own state: nothing is noised anew or forgotten.
    """
    call = 0
    noted: set[str] = set()
    try:
        asked = next(steps)
        last = asked.x if clean is None else clean
        while True:
            if handover and handover.is_due(guidance, asked, call):
                guidance, handover = (yield from handover.take()), None
            yield from _news(guidance.skipped(asked, call), noted)
            answers = yield guidance.question(asked, call)
            last = answers[0]
            asked = steps.send(guidance.fold(answers, asked, call))
            call += 1
    except StopIteration as end:
        return Sampled(end.value, interrupted=False, model=guidance.model)
    except Interrupted:
        return Sampled(last, interrupted=True, model=guidance.model)
    finally:
        steps.close()


def _news(notes: Sequence[Note], noted: set[str]) -> Iterator[Note]:
    """The notes of keys that are not yet in `noted`, which gets them."""
    for note in notes:
        if note.key not in noted:
            noted.add(note.key)
            yield note


def _answer(guided: Tensor, negative: Tensor, asked: Eval) -> Tensor:
    return torch.stack([guided, negative]) if asked.pair else guided


def _nearest(ascending: Sequence[float], value: float) -> int:
    """The index of the nearest of some numbers, the first of two."""
    above = bisect_left(ascending, value)
    return min(range(max(above - 1, 0), min(above + 1, len(ascending))), key=lambda i: abs(ascending[i] - value))
