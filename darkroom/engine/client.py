"""What a gateway sees of an engine: submit, events, interrupt, skip, cancel. No torch here.

The engine in this process and an engine elsewhere offer the same protocol.

    queued -> running -> {done, interrupted, failed, cancelled};  queued -> cancelled
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Literal, Protocol

from darkroom.errors import DarkroomError
from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.jobs.merging import MergeOrder, Report
from darkroom.jobs.networks import (
    AdapterInfo,
    EmbeddingInfo,
    FaceRestorerInfo,
    HypernetworkInfo,
    UpscalerInfo,
    VaeInfo,
)
from darkroom.jobs.retouching import Spec
from darkroom.jobs.spec import CheckpointInfo, Emphasis, Picture

State = Literal["queued", "running", "done", "interrupted", "failed", "cancelled"]
FINAL: frozenset[State] = frozenset({"done", "interrupted", "failed", "cancelled"})


PreviewMethod = Literal["Full", "Approx NN", "Approx cheap", "TAESD"]
PreviewContent = Literal["Prompt", "Negative prompt", "Combined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """How a running job is shown: by which decoder, whose estimate, and whether all pictures of the batch or the first.

    With `finished` it is the batch before the running one that is shown, as it came out.
    """

    method: PreviewMethod = "Approx NN"
    content: PreviewContent = "Prompt"
    whole_batch: bool = False
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """For whom a job is done: jobs of different parties take turns, whoever brings more of them; nobody is told apart
    under the empty name. Among jobs that wait, those of a higher priority go first, within bounds (`turns`).
    """

    party: str = ""
    priority: int = 0


ANYBODY = Standing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One picture of a job: its place in the job (`0 .. batch_size * n_iter - 1`), its pixels, and the entries of its
    generation text that turned out while it was made, with values as JSON has them. `asides` are pictures made on the
    way that are to be saved, each with the suffix of its file.
    """

    index: int
    picture: Picture
    notes: tuple[tuple[str, object], ...] = ()
    asides: tuple[tuple[str, Picture], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job at one moment. `fraction` is 0..1 over all its pictures; times are `time.time()` seconds; `step` counts
    from 0, and so does `part`, the pass that it belongs to. They are those of the picture that is least far; `worked`
    are the mean steps of all since that pass began. Pictures of a job may be drawn one after the other.
    """

    job_id: str
    spec: Spec
    state: State
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    iteration: int = 0
    part: int = 0
    step: int = 0
    steps: int = 0
    worked: int = 0
    fraction: float = 0.0
    skipped: bool = False
    interrupted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job. The last event of a stream has a final state.

    `pictures` are set on the last event of a done or interrupted job, `error` on that of a failed one.
    """

    status: JobStatus
    pictures: tuple[Finished, ...] = ()
    error: DarkroomError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Memory of a CUDA device, bytes; pairs are (current, peak) of torch's allocator. The last two are counts."""

    free: int
    total: int
    active: tuple[int, int]
    allocated: tuple[int, int]
    reserved: tuple[int, int]
    inactive: tuple[int, int]
    retries: int
    out_of_memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often a quantity was at most each of `bounds` and above the one before; the last count is of all above.

    `total` is the sum of the quantity.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine has done since it began. `rows` are the network inputs of its batches and `seconds` the time they
    took, by the kind of question; `waits` and `services` the seconds from a job's submission to its beginning and from
    there to its end, by checkpoint; `ended` counts jobs; `resident_bytes` is what the loaded models hold.
    """

    rows: Mapping[str, Histogram] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    waits: Mapping[str, Histogram] = field(default_factory=dict)
    services: Mapping[str, Histogram] = field(default_factory=dict)
    ended: Mapping[State, int] = field(default_factory=dict)
    resident_bytes: int = 0


class Engine(Protocol):
    """Hosts jobs. Every method may be called from any thread or event loop and returns at once, unless it is async."""

    def submit(self, spec: Spec, standing: Standing = ANYBODY) -> str:
        """Accept a job and give its id. Raises Busy when the queue is full, or as full as one party may make it;
        UnknownName for a checkpoint that is gone.
        """

    def events(self, job_id: str) -> AsyncIterator[Event]:
        """The job's events from now on, beginning with its present status, ending with its final one."""

    def status(self, job_id: str) -> JobStatus:
        """One job. Raises UnknownName."""

    def jobs(self) -> Sequence[JobStatus]:
        """Live jobs in order of submission, then the last few ended ones."""

    def interrupt(self, job_id: str) -> None:
        """Stop sampling; the pictures so far are the result. No effect on an ended job."""

    def skip(self, job_id: str) -> None:
        """As interrupt, but only for the batch that is running; the next one goes on."""

    def cancel(self, job_id: str) -> None:
        """Drop the job; nothing comes of it. No effect on an ended job."""

    async def preview(self, job_id: str, preview: Preview) -> Sequence[Picture]:
        """The present state of a job's pictures; none before the first evaluation."""

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """What can be loaded, the embedded model only if there is nothing else."""

    def refresh(self, *, hidden: bool | None = None) -> None:
        """Look at the models folder again: from now on in folders whose names begin with a dot or not; None: as last
        time.
        """

    def adapters(self) -> Sequence[AdapterInfo]:
        """The LoRA family's files."""

    def find_adapter(self, name: str) -> AdapterInfo | None:
        """The adapter of this name or alias, also if its file is new."""

    def adapter_hash(self, name: str) -> str | None:
        """Twelve digits that stand for an adapter in a generation text, given its key; None if it cannot be read."""

    def autoencoders(self) -> Sequence[VaeInfo]:
        """The autoencoders that have files of their own."""

    def vae_hash(self, name: str) -> str | None:
        """Ten digits that stand for an autoencoder in a generation text; None if it cannot be read."""

    def hypernetworks(self) -> Sequence[HypernetworkInfo]:
        """The hypernetworks."""

    def upscalers(self) -> Sequence[UpscalerInfo]:
        """The upscalers that need a network, by name, those without a file too."""

    def find_upscaler(self, name: str) -> UpscalerInfo | None:
        """The upscaler of a name, also if its file is new."""

    def face_restorers(self) -> Sequence[FaceRestorerInfo]:
        """The face restorers by name, those without a file too."""

    def embeddings(self) -> Sequence[EmbeddingInfo]:
        """The textual-inversion embeddings, whether or not they fit a checkpoint."""

    def find_embeddings(
        self, width: int | None, texts: Sequence[str], emphasis: Emphasis, comma_backtrack: int
    ) -> Sequence[EmbeddingInfo]:
        """The embeddings of a width (None: of any) that stand in texts encoded together, in order, each once."""

    def count_tokens(self, width: int | None, text: str, emphasis: Emphasis, comma_backtrack: int) -> int:
        """How many of CLIP's places a text takes, with embeddings of a width; full chunks count as 75."""

    async def merge(self, order: MergeOrder, report: Report, stop: Flag) -> CheckpointInfo:
        """Make a new checkpoint, beside the jobs. `report` is called from another thread; `stop` ends it early.

        Raises BadRequest for what cannot be merged so, and what kept the file from being written.
        """

    async def describe(self, picture: Picture, question: InWords | InTags) -> Description:
        """Say what is in a picture. Raises MissingNetwork where the network for it has no file, BadModelFile."""

    async def unload(self) -> None:
        """Drop the loaded models; jobs that need one load it again."""

    async def load(self, checkpoint: str) -> None:
        """Load a checkpoint, given by its key. Raises UnknownName, BadModelFile."""

    def memory(self) -> DeviceMemory | None:
        """The device's memory; None where it has none of its own."""

    def stats(self) -> EngineStats:
        """What it has done so far. The bytes of models are those of a moment ago."""

    def ready(self) -> bool:
        """True once the default checkpoint is loaded and warm."""

    def close(self) -> None:
        """Cancel everything and stop the device thread."""


async def result(engine: Engine, job_id: str) -> Event:
    """Wait for the job's last event. Raises the job's error if it failed."""
    last: Event | None = None
    async for event in engine.events(job_id):
        last = event
    assert last is not None, "a stream of events is never empty"
    if last.error is not None:
        raise last.error
    return last
