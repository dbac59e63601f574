"""A lane: one picture of a job in the engine, suspended at a question. The only place that calls `send`, `throw` and
`close`.
"""

from collections.abc import Hashable

from torch import Tensor

from darkroom.jobs.ops import Answer, Decode, Denoise, EncodeImage, EncodeText, Interrupted, Op, Program, Upscale
from darkroom.jobs.spec import Picture


class Lane:
    """One running program. `op` is the question it waits for; once `op` is None, `picture` is its result.

    An interrupt takes effect at the next Denoise, so there is always a latent to make a picture of; text and pictures
    being encoded are let through.
    """

    __slots__ = ("_interrupted", "_program", "arrival", "index", "op", "picture", "served_s", "step", "steps", "x0")

    def __init__(self, program: Program, *, index: int, arrival: int, served_s: float) -> None:
        self._program = program
        self._interrupted = False
        self.index = index
        self.arrival = arrival
        self.served_s = served_s
        self.step = 0
        self.steps = 0
        self.x0: Tensor | None = None
        self.picture: Picture | None = None
        self.op: Op | None = None
        self._resume(None)

    def answer(self, answer: Answer) -> None:
        """Send the answer to the pending question and run the program up to its next one. Raises what the program
        raises.
        """
        if isinstance(self.op, Denoise):
            self.x0 = answer[0]
        self._resume(answer)

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
        while self._interrupted and isinstance(self.op, Denoise):
            try:
                self._take(self._program.throw(Interrupted()))
            except StopIteration as end:
                self._finish(end.value)

    def _take(self, op: Op) -> None:
        self.op = op
        if isinstance(op, Denoise):
            self.step, self.steps = op.step, op.steps

    def _finish(self, picture: Picture) -> None:
        self.op = None
        self.picture = picture
        self.step = self.steps


def batch_key(op: Op) -> Hashable:
    """Questions with equal keys can be answered by one forward pass."""
    match op:
        case Denoise(model=model, rows=rows):
            lengths = {len(row.cond.context) for row in rows}
            return "denoise", model, tuple(rows[0].x.shape), tuple(sorted(lengths))
        case Decode(model=model, latent=latent):
            return "decode", model, tuple(latent.shape)
        case EncodeImage(model=model, picture=picture):
            return "encode image", model, picture.shape
        case EncodeText(model=model):
            return "encode text", model
        case Upscale(upscaler=upscaler, picture=picture, size=size):
            return "upscale", upscaler, picture.shape, size


def row_count(op: Op) -> int:
    """How many network inputs the question is."""
    return len(op.rows) if isinstance(op, Denoise) else 1
