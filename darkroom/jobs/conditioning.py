"""From prompts to what guides a pass: the prompt language read, its texts encoded, and who pulls at which model call.

Knows the order in which the prompt language is taken apart; knows nothing of networks or of sampling algorithms.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from darkroom.jobs.ops import Answer, Cond, EncodeText, Op
from darkroom.jobs.spec import JobSpec, Model
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
    spec: JobSpec, model: Model, prompts: Prompts, timeline: Timeline
) -> Generator[Op, Answer, Conditioning]:
    """Encode both prompts of a pass, for a model, on the pass's timeline.

    A1111: tags of extra networks and AND are read in the positive prompt only, and before prompt editing.
    """
    text, _ = cut_networks(prompts.positive)
    parts: list[tuple[Timed, float]] = []
    for part in composition.split(text):
        timed = yield from _encode(spec, model, part.text, timeline)
        parts.append((timed, part.weight))
    longest = max(timed.length for timed, _ in parts)
    levelled = tuple((timed.stretched(longest), weight) for timed, weight in parts)
    negative = yield from _encode(spec, model, prompts.negative, timeline)
    return (yield from _padded(spec, model, Conditioning(parts=levelled, negative=negative)))


def _encode(spec: JobSpec, model: Model, text: str, timeline: Timeline) -> Generator[Op, Answer, Timed]:
    """Encode all texts that one prompt stands for. A1111: together, because emphasis is normalised over all of them."""
    entries = tuple(schedule(text, timeline))
    conds: list[Cond] = yield _question(spec, model, tuple(entry.text for entry in entries))
    return Timed(entries=entries, conds=tuple(conds))


def _question(spec: JobSpec, model: Model, texts: tuple[str, ...]) -> EncodeText:
    return EncodeText(
        model=model,
        texts=texts,
        clip_skip=spec.clip_skip,
        emphasis=spec.emphasis,
        old_emphasis=spec.old_emphasis,
        comma_backtrack=spec.comma_backtrack,
    )


def _padded(spec: JobSpec, model: Model, found: Conditioning) -> Generator[Op, Answer, Conditioning]:
    """Both prompts at one length, if the job asks for it.

    A1111: the first way changes the negative prompt only, even if that means to cut it; the second appends the encoding
    of no text, made without adapters, to the shorter one.
    """
    positive, negative = found.parts[0][0].length, found.negative.length
    if positive == negative:
        return found
    if spec.guidance.pad_v0:
        return replace(found, negative=found.negative.stretched(positive), padding="Pad conds v0")
    if not spec.guidance.pad:
        return found
    [empty] = yield _question(spec, replace(model, adapters=()), ("",))
    return Conditioning(
        parts=tuple((part.filled(negative, empty.context), weight) for part, weight in found.parts),
        negative=found.negative.filled(positive, empty.context),
        padding="Pad conds",
    )
