"""Live pictures of running jobs: made when somebody asks, and made anew only once a job has gone on for some steps."""

from asyncio import Lock
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from anyio import to_thread

from darkroom.engine.client import Engine, JobStatus, Preview
from darkroom.images.codecs import Format, Pixels, encode, to_base64
from darkroom.images.grid import count_rows, tile
from darkroom.options.values import OptionValues

_REMEMBERED_JOBS = 64


@dataclass(slots=True)
class _Shown:
    """The last live picture of a job: where the job stood then, its number from 1 on, and its files by format."""

    place: tuple[int, int] = (0, 0)
    worked: int = 0
    number: int = 0
    sheet: Pixels | None = None
    files: dict[Format, str] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class LivePictures:
    """The live pictures of the jobs that were asked for last."""

    def __init__(self) -> None:
        self._shown: OrderedDict[str, _Shown] = OrderedDict()

    async def show(
        self, engine: Engine, job: JobStatus, options: OptionValues, file_format: Format
    ) -> tuple[int, str | None]:
        """The number of a job's live picture, and the picture as base64; (0, None) as long as there is none."""
        if not options.live_previews_enable:
            return 0, None
        shown = self._of(job.job_id)
        async with shown.lock:
            if _is_due(shown, job, options.show_progress_every_n_steps):
                await _renew(shown, engine, job, options)
            if shown.sheet is None:
                return 0, None
            if file_format not in shown.files:
                draw = partial(encode, shown.sheet, file_format, quality=options.jpeg_quality)
                shown.files[file_format] = to_base64(await to_thread.run_sync(draw))
            return shown.number, shown.files[file_format]

    def _of(self, job_id: str) -> _Shown:
        shown = self._shown.setdefault(job_id, _Shown())
        self._shown.move_to_end(job_id)
        while len(self._shown) > _REMEMBERED_JOBS:
            self._shown.popitem(last=False)
        return shown


def _is_due(shown: _Shown, job: JobStatus, every: int) -> bool:
    """Whether a job's pictures have made so many steps in the mean since its last live one; with -1, whether it has
    finished another batch.

    A1111: every pass counts its steps from 0, and so does the waiting.
    """
    place = (job.iteration, job.part)
    if every < 0:
        return place[0] > shown.place[0]
    return job.worked - (shown.worked if shown.place == place else 0) >= every


async def _renew(shown: _Shown, engine: Engine, job: JobStatus, options: OptionValues) -> None:
    preview = Preview(
        method=options.show_progress_type,
        content=options.live_preview_content,
        whole_batch=options.show_progress_grid,
        finished=options.show_progress_every_n_steps < 0,
    )
    pictures = await engine.preview(job.job_id, preview)
    if pictures:
        shown.sheet = await to_thread.run_sync(_sheet, pictures, options)
        shown.place, shown.worked = (job.iteration, job.part), job.worked
        shown.number += 1
        shown.files.clear()


def _sheet(pictures: Sequence[Pixels], options: OptionValues) -> Pixels:
    if len(pictures) == 1:
        return pictures[0]
    rows = count_rows(len(pictures), rows=options.n_rows, prevent_empty_spots=options.grid_prevent_empty_spots)
    return tile(pictures, rows, options.grid_background_color)
