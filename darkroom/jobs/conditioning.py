"""From prompts to what guides a pass: the prompt language read, its texts encoded, and who pulls at which model call.

Knows the order in which the prompt language is taken apart; knows nothing of networks or of sampling algorithms.
"""

from collections.abc import Generator
from dataclasses import dataclass

from darkroom.jobs.ops import Answer, Cond, EncodeText, Op
from darkroom.jobs.spec import JobSpec, Model
from darkroom.prompt import composition
from darkroom.prompt.grammar import cut_networks
from darkroom.prompt.schedule import Entry, Timeline, entry_at, schedule


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Timed:
    """A prompt that may change while the picture is sampled: one conditioning for each of its texts."""

    entries: tuple[Entry, ...]
    conds: tuple[Cond, ...]

    def at(self, call: int) -> Cond:
        """The conditioning of a model call, the first being number 0."""
        return self.conds[entry_at(self.entries, call)]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Conditioning:
    """Both prompts of a pass. The positive one has a part, with its weight, for every piece between ANDs."""

    parts: tuple[tuple[Timed, float], ...]
    negative: Timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What a pass is asked to show, and what not."""

    positive: str
    negative: str


def conditioning(spec: JobSpec, model: Model, prompts: Prompts, calls: int) -> Generator[Op, Answer, Conditioning]:
    """Encode both prompts of a pass that is expected to make `calls` model calls.

    A1111: tags of extra networks and AND are read in the positive prompt only, and before prompt editing.
    """
    timeline = Timeline(steps=calls)
    text, _ = cut_networks(prompts.positive)
    parts = []
    for part in composition.split(text):
        timed = yield from _encode(spec, model, part.text, timeline)
        parts.append((timed, part.weight))
    negative = yield from _encode(spec, model, prompts.negative, timeline)
    return Conditioning(parts=tuple(parts), negative=negative)


def _encode(spec: JobSpec, model: Model, text: str, timeline: Timeline) -> Generator[Op, Answer, Timed]:
    """Encode all texts that one prompt stands for. A1111: together, because emphasis is normalised over all of them."""
    entries = tuple(schedule(text, timeline))
    conds: list[Cond] = yield EncodeText(
        model=model,
        texts=tuple(entry.text for entry in entries),
        clip_skip=spec.clip_skip,
        emphasis=spec.emphasis,
        comma_backtrack=spec.comma_backtrack,
    )
    return Timed(entries=entries, conds=tuple(conds))
