"""From prompts to what guides a pass: the prompt language read, its texts encoded, and who pulls at which model call.

Knows the order in which the prompt language is taken apart; knows nothing of networks or of sampling algorithms.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from darkroom.jobs.ops import Answer, Cond, EncodeText, Op
from darkroom.jobs.spec import Family, JobSpec, Model, SdxlOptions
from darkroom.prompt import composition
from darkroom.prompt.grammar import cut_networks
from darkroom.prompt.schedule import Entry, Timeline, entry_at, schedule


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Timed:
    """A prompt that may change while the picture is sampled: one conditioning for each of its texts, all of one
    length.
    """

    entries: tuple[Entry, ...]
    conds: tuple[Cond, ...]

    @property
    def length(self) -> int:
        """Token vectors of each conditioning: a multiple of 77."""
        return len(self.conds[0].context)

    def at(self, call: int) -> Cond:
        """The conditioning of a model call, the first being number 0."""
        return self.conds[entry_at(self.entries, call)]

    def stretched(self, length: int) -> "Timed":
        """With its last token vector repeated up to a length, or cut down to it."""
        missing = max(length - self.length, 0)
        return self._with(
            [torch.cat([cond.context, cond.context[-1:].expand(missing, -1)])[:length] for cond in self.conds]
        )

    def filled(self, length: int, filler: Tensor) -> "Timed":
        """With `filler` `[77, width]` appended as often as it fits into what is missing."""
        times = max(length - self.length, 0) // len(filler)
        return self._with([torch.cat([cond.context, *[filler] * times]) for cond in self.conds])

    def _with(self, contexts: Sequence[Tensor]) -> "Timed":
        conds = (replace(cond, context=context) for cond, context in zip(self.conds, contexts, strict=True))
        return replace(self, conds=tuple(conds))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Conditioning:
    """Both prompts of a pass. The positive one has a part, with its weight, for every piece between ANDs; all parts are
    of one length. `padding` is the entry of the generation text for how the prompts were brought to one length.
    """

    parts: tuple[tuple[Timed, float], ...]
    negative: Timed
    padding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What a pass is asked to show, and what not."""

    positive: str
    negative: str


def conditioning(
    spec: JobSpec, model: Model, prompts: Prompts, timeline: Timeline, size: tuple[int, int] | None = None
) -> Generator[Op, Answer, Conditioning]:
    """Encode both prompts of a pass, for a model, on the pass's timeline.

    `size` is the pass's (height, width) in pixels, the job's own if not given. A1111: tags of extra networks and AND
    are read in the positive prompt only, and before prompt editing.
    """
    ask = _Asking(spec=spec, model=model, size=size or (spec.height, spec.width))
    text, _ = cut_networks(prompts.positive)
    parts: list[tuple[Timed, float]] = []
    for part in composition.split(text):
        timed = yield from ask.encode(part.text, timeline)
        parts.append((timed, part.weight))
    longest = max(timed.length for timed, _ in parts)
    levelled = tuple((timed.stretched(longest), weight) for timed, weight in parts)
    negative = yield from ask.encode(prompts.negative, timeline, negative=True)
    return (yield from _padded(ask, Conditioning(parts=levelled, negative=negative)))


def numbers_beside(
    family: Family, size: tuple[int, int], sdxl: SdxlOptions, *, negative: bool = False
) -> tuple[float, ...]:
    """What checkpoints of a family are told beside a text about a picture of `size` (height, width) in pixels.

    Podell et al. 2023, arXiv:2307.01952, section 2.2: its size as it was found, how it was cropped, its size now.
    A1111: both sizes are that of the pass.
    """
    framing = (*size, sdxl.crop_top, sdxl.crop_left)
    match family:
        case "sdxl":
            return (*framing, *size)
        case "refiner":
            return (*framing, sdxl.low_score if negative else sdxl.high_score)
        case "sd1" | "sd2" | "sd3" | "flux":
            return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """How the texts of a pass are encoded: by which model, for a picture of which `size` (height, width)."""

    spec: JobSpec
    model: Model
    size: tuple[int, int]

    def encode(self, text: str, timeline: Timeline, *, negative: bool = False) -> Generator[Op, Answer, Timed]:
        """Encode all texts that one prompt stands for. A1111: together, because emphasis is normalised over all of
        them.
        """
        entries = tuple(schedule(text, timeline))
        conds: list[Cond] = yield self.question(tuple(entry.text for entry in entries), negative=negative)
        return Timed(entries=entries, conds=tuple(conds))

    def question(self, texts: tuple[str, ...], *, negative: bool = False) -> EncodeText:
        """The texts as the engine is asked to encode them."""
        spec = self.spec
        return EncodeText(
            model=self.model,
            texts=texts,
            clip_skip=spec.clip_skip,
            emphasis=spec.emphasis,
            old_emphasis=spec.old_emphasis,
            comma_backtrack=spec.comma_backtrack,
            negative=negative,
            numbers=self._numbers(negative=negative),
            sdxl_clip_l_skip=spec.sdxl.clip_l_skip,
            t5=spec.flow.t5 and self.model.traits.family == "sd3",
        )

    def _numbers(self, *, negative: bool) -> tuple[float, ...]:
        family, spec = self.model.traits.family, self.spec
        if family == "flux":
            return (spec.flow.guidance,)
        return numbers_beside(family, self.size, spec.sdxl, negative=negative)


def _padded(ask: _Asking, found: Conditioning) -> Generator[Op, Answer, Conditioning]:
    """Both prompts at one length, if the job asks for it.

    A1111: the first way changes the negative prompt only, even if that means to cut it; the second appends the encoding
    of no text, made without adapters, to the shorter one.
    """
    guidance = ask.spec.guidance
    positive, negative = found.parts[0][0].length, found.negative.length
    if positive == negative:
        return found
    if guidance.pad_v0:
        return replace(found, negative=found.negative.stretched(positive), padding="Pad conds v0")
    if not guidance.pad:
        return found
    [empty] = yield replace(ask, model=replace(ask.model, adapters=())).question(("",))
    return Conditioning(
        parts=tuple((part.filled(negative, empty.context), weight) for part, weight in found.parts),
        negative=found.negative.filled(positive, empty.context),
        padding="Pad conds",
    )
