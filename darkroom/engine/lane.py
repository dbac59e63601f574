"""A lane: one picture of a job in the engine, suspended at a question. The only place that calls `send`, `throw` and
`close`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from torch import Tensor

from darkroom.engine.client import PreviewContent
from darkroom.engine.costs import Kind
from darkroom.engine.policy import Stage
from darkroom.jobs.effort import efforts
from darkroom.jobs.ops import (
    Answer,
    Aside,
    Decode,
    Denoise,
    EncodeImage,
    EncodeText,
    EnlargeTile,
    EstimateDepth,
    ForPicture,
    Interrupted,
    Note,
    Op,
    Program,
    Question,
    RestoreFace,
    RestoreFaces,
    Upscale,
)
from darkroom.jobs.retouching import Spec
from darkroom.jobs.spec import Model, Picture


class Lane:
    """One running program. `op` is the question it waits for; once `op` is None, `picture` is its result.

    An interrupt takes effect at the next Denoise, so there is always a latent to make a picture of, or at the next
    piece of a picture that is enlarged; text and pictures being encoded are let through. `notes` are the entries for
    the generation text that turned out so far, `asides` the pictures made on the way, by the suffix of their files.
    """

    __slots__ = (
        "_interrupted", "_program", "_seen", "arrival", "asides", "index", "notes", "op", "part", "picture", "step",
        "steps",
    )  # fmt: skip

    def __init__(self, program: Program, *, index: int, arrival: int) -> None:
        self._program = program
        self._interrupted = False
        self.index = index
        self.arrival = arrival
        self.part = 0
        self.step = 0
        self.steps = 0
        self._seen: tuple[Denoise, Sequence[Tensor]] | None = None
        self.notes: dict[str, object] = {}
        self.asides: dict[str, Picture] = {}
        self.picture: Picture | None = None
        self.op: Question | None = None
        self._resume(None)

    @property
    def passed(self) -> float:
        """How many passes are done, the present one's share included."""
        return self.part + self.step / max(self.steps, 1)

    @property
    def stage(self) -> Stage:
        """What it waits for."""
        match self.op:
            case Denoise():
                return "evaluating"
            case EncodeText() | EncodeImage() | EstimateDepth() if self._seen is None:
                return "beginning"
        return "other"

    def answer(self, answer: Answer) -> None:
        """Send the answer to the pending question and run the program up to its next one. Raises what the program
        raises.
        """
        if isinstance(self.op, Denoise):
            self._seen = self.op, answer
        self._resume(answer)

    def estimate(self, content: PreviewContent) -> tuple[Model, Tensor] | None:
        """What the last evaluation saw, `[C, H/8, W/8]`, and by which model; None before the first."""
        if self._seen is None:
            return None
        op, answers = self._seen
        if content == "Combined" and op.combine:
            return op.model, op.combine(answers)
        return op.model, answers[-1] if content == "Negative prompt" else answers[0]

    def interrupt(self) -> None:
        """Stop sampling now or at the first evaluation."""
        self._interrupted = True
        self._throw_if_due()

    def close(self) -> None:
        """Drop the program; no picture comes of it."""
        self._program.close()
        self.op = None

    def _resume(self, answer: Answer) -> None:
        try:
            self._take(self._program.send(answer))
        except StopIteration as end:
            self._finish(end.value)
        self._throw_if_due()

    def _throw_if_due(self) -> None:
        # A program answers a throw with its next question, which could be another sampling pass: hence the loop.
        while self._interrupted and isinstance(self.op, Denoise | EnlargeTile):
            try:
                self._take(self._program.throw(Interrupted()))
            except StopIteration as end:
                self._finish(end.value)

    def _take(self, op: Op) -> None:
        while isinstance(op, Note | Aside):
            if isinstance(op, Note):
                self.notes[op.key] = op.value
            else:
                self.asides[op.suffix] = op.picture
            op = self._program.send(None)
        self.op = op
        if isinstance(op, Denoise):
            # A sampler that chooses its steps looks ahead and may come back.
            seen = self.step if op.part == self.part and self._seen else 0
            self.part, self.step, self.steps = op.part, max(op.step, seen), op.steps
        elif isinstance(op, ForPicture) and self._seen is None:
            self.step, self.steps = op.step, op.steps  # there is nothing else that it could be a part of

    def _finish(self, picture: Picture) -> None:
        self.op = None
        self.picture = picture
        self.step = self.steps


def batch_key(op: Question) -> Hashable:
    """Questions with equal keys can be answered by one forward pass."""
    match op:
        case Denoise(model=model, rows=rows):
            texts, depths = {row.cond.shape for row in rows}, {row.is_shallow for row in rows}
            return "denoise", _without_vae(model), tuple(rows[0].x.shape), tuple(sorted(texts)), tuple(sorted(depths))
        case Decode(model=model, latent=latent):
            return "decode", _vae_alone(model), tuple(latent.shape)
        case EncodeImage(model=model, picture=picture, scaled=scaled):
            return "encode image", _vae_alone(model), type(picture), tuple(picture.shape), scaled
        case EstimateDepth(model=model, picture=picture):
            return "estimate depth", model, tuple(picture.shape)
        case EncodeText(model=model):
            return "encode text", model
        case Upscale() | RestoreFaces() | EnlargeTile() | RestoreFace():
            return _picture_key(op)


def _picture_key(op: Upscale | RestoreFaces | EnlargeTile | RestoreFace) -> Hashable:
    match op:
        case Upscale(upscaler=upscaler, picture=picture, size=size):
            return "upscale", upscaler, picture.shape, size
        case RestoreFaces(picture=picture, restoration=restoration):
            return "restore faces", restoration, picture.shape
        case EnlargeTile(upscaler=upscaler, picture=picture):
            return "enlarge", upscaler, picture.shape
        case RestoreFace(restorer=restorer):
            return "restore a face", restorer


def company_of(spec: Spec, op: Question) -> Hashable:
    """Lanes of equal company can share evaluations, as far as is known before their first one."""
    known = kind_of(op) if isinstance(op, Denoise) else efforts(spec)[0]
    return known.checkpoint, known.pixels


def kind_of(op: Question) -> Kind:
    """What the question costs is remembered under this; adapters are in the weights and cost nothing."""
    match op:
        case Denoise(model=model, rows=rows):
            ways = " in eight bits" * model.is_in_eight_bits + f" merged {model.token_merging:g}" * (
                model.token_merging > 0
            )
            ways += " outside" * all(row.is_shallow for row in rows)
            return Kind(f"denoise{ways}", model.checkpoint, rows[0].x.shape[-1] * rows[0].x.shape[-2])
        case Decode(model=model, latent=latent):
            return Kind(f"decode {model.decoder}", model.checkpoint, latent.shape[-1] * latent.shape[-2])
        case EncodeImage(model=model) | EncodeText(model=model) | EstimateDepth(model=model):
            return Kind(type(op).__name__, model.checkpoint, 0)
        case Upscale() | RestoreFaces() | EnlargeTile() | RestoreFace():
            return Kind(str(_picture_key(op)), "", 0)


def _without_vae(model: Model) -> Model:
    """What the UNet sees of a model."""
    return replace(model, vae="", vae_fallback="float32", decoder="Full")


def _vae_alone(model: Model) -> Model:
    """What the autoencoder sees of a model."""
    return replace(model, adapters=(), token_merging=0.0)


def row_count(op: Question) -> int:
    """How many network inputs the question is."""
    return len(op.rows) if isinstance(op, Denoise) else 1
