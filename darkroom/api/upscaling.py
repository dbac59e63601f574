"""Upscalers and face restorers as requests name them: which there are, how they are set up, and having the engine work
on a finished picture.

Knows names, options and pictures; what a network is, the engine knows.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from anyio import from_thread
from PIL import Image

from darkroom.api.answers import UnknownUpscaler
from darkroom.api.models import Generation
from darkroom.engine.client import ANYBODY, Engine, Event, Standing, result
from darkroom.errors import BadRequest, DarkroomError, NotInstalled
from darkroom.images.upscale import BUILT_IN, NONE, RESAMPLERS, Enlarge
from darkroom.jobs.latent_modes import LATENT_MODES
from darkroom.jobs.networks import FaceRestorerInfo, UpscalerInfo, lack_of
from darkroom.jobs.retouching import Enlargement, RetouchSpec
from darkroom.jobs.spec import FaceRestoration, Hires, Tiles
from darkroom.options.values import OptionValues


class Shelf(Protocol):
    """What of an engine is asked here; see `Engine`."""

    def upscalers(self) -> Sequence[UpscalerInfo]: ...
    def find_upscaler(self, name: str) -> UpscalerInfo | None: ...
    def face_restorers(self) -> Sequence[FaceRestorerInfo]: ...


class Bench(Protocol):
    """Where upscalers are found by a request's field and its value; see `Workbench`."""

    def find(self, values: OptionValues, field: str, name: str) -> Enlarge | None: ...


def offered(shelf: Shelf, values: OptionValues) -> list[UpscalerInfo]:
    """The upscalers that need a network, by name: every file, and those of the published ones that options name."""
    return [info for info in shelf.upscalers() if _is_offered(info, values)]


def _is_offered(info: UpscalerInfo, values: OptionValues) -> bool:
    chosen = {"RealESRGAN": values.realesrgan_enabled_models, "DAT": values.dat_enabled_models}
    return not info.address or info.family not in chosen or info.name in chosen[info.family]


def upscaler_names(shelf: Shelf, values: OptionValues) -> tuple[str, ...]:
    """All upscalers, those that need no network first."""
    return (*BUILT_IN, *(info.name for info in offered(shelf, values)))


def find_network(
    field: str, name: str, shelf: Shelf, values: OptionValues, *, also: tuple[str, ...] = ()
) -> UpscalerInfo | None:
    """The network of an upscaler's name, None for a name that needs none. `also` are further names that are known.

    Raises UnknownUpscaler, and NotInstalled for a network that is listed but cannot be used.
    """
    if name in BUILT_IN:
        return None
    info = shelf.find_upscaler(name)
    if info is None or not _is_offered(info, values):
        raise UnknownUpscaler(field, name, (*also, *upscaler_names(shelf, values)))
    lack = lack_of(info)
    if lack:
        raise NotInstalled(field, name, lack)
    return info


def tiles_for(info: UpscalerInfo, values: OptionValues) -> Tiles:
    """How pictures are cut up for a network, as the options say."""
    match info.family:
        case "DAT":
            return Tiles(side=values.DAT_tile, overlap=values.DAT_tile_overlap)
        case "SwinIR":
            return Tiles(side=values.SWIN_tile, overlap=values.SWIN_tile_overlap, mean=True)
        case "ScuNET":
            return Tiles(side=values.SCUNET_tile, overlap=values.SCUNET_tile_overlap, mean=True)
        case _:
            return Tiles(side=values.ESRGAN_tile, overlap=values.ESRGAN_tile_overlap)


def with_tiles(hires: Hires, values: OptionValues, shelf: Shelf) -> Hires:
    """The second pass with its upscaler set up. Raises UnknownUpscaler, NotInstalled."""
    if hires.upscaler in LATENT_MODES:
        return hires
    info = find_network("hr_upscaler", hires.upscaler, shelf, values, also=tuple(LATENT_MODES))
    return replace(hires, tiles=tiles_for(info, values)) if info else hires


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUpscaler:
    """What enlarges the pictures that img2img starts from, None for plain Lanczos, and why it is not what was asked."""

    enlarge: Enlarge | None = None
    warnings: tuple[str, ...] = ()


def find_start_upscaler(values: OptionValues, bench: Bench | None) -> StartUpscaler:
    """The upscaler that the options name. A1111: an unknown one is none."""
    name = values.upscaler_for_img2img or NONE
    if bench is None:
        return StartUpscaler(enlarge=RESAMPLERS.get(name))
    try:
        return StartUpscaler(enlarge=bench.find(values, "upscaler_for_img2img", name))
    except BadRequest as error:
        return StartUpscaler(warnings=(f"{error}; Lanczos was used",))


def faces_of(wire: Generation, values: OptionValues) -> FaceRestoration | None:
    """How faces are restored in the pictures of a request; None if they are not."""
    wanted = values.face_restoration if wire.restore_faces is None else wire.restore_faces
    if not wanted:
        return None
    saved = values.samples_save and bool(getattr(wire, "save_images", False))
    return FaceRestoration(
        restorer=values.face_restoration_model,
        weight=values.code_former_weight,
        keep=saved and values.save_images_before_face_restoration,
        unload=values.face_restoration_unload,
    )


def missing_restorer(name: str, shelf: Shelf) -> str | None:
    """What to say where a face restorer has no file; None where it has one."""
    info = next((info for info in shelf.face_restorers() if info.name == name), None)
    if info is None or info.filename:
        return None
    return f"{name} has no file, so faces stay as they are: put it at {info.wanted}"


class Dropped(DarkroomError):
    """Nobody waits for the picture any more."""


class Workbench:
    """Has the engine work on the pictures of one request. Its functions are for worker threads, and wait there.

    `interrupted` and `skipped` say whether a piece of work was.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        task_id: str = "",
        seen: set[str] | None = None,
        note: Callable[[str], None] = lambda _: None,
        standing: Standing = ANYBODY,
    ) -> None:
        """`seen` holds the ids of the jobs in work; `note` is told of every job; `standing` says for whom it works."""
        self._engine = engine
        self._standing = standing
        self._task_id = task_id
        self._note = note
        self._job_ids = set[str]() if seen is None else seen
        self._dropped = False
        self._lock = threading.Lock()
        self.interrupted = False
        self.skipped = False

    def find(self, values: OptionValues, field: str, name: str) -> Enlarge | None:
        """The function of an upscaler, None for none. Raises UnknownUpscaler, NotInstalled."""
        info = find_network(field, name, self._engine, values)
        if info is None:
            return None if name == NONE else RESAMPLERS[name]
        work = Enlargement(upscaler=info.name, tiles=tiles_for(info, values))
        return lambda picture, _scale: self._work(picture, work)

    def restore_faces(self, picture: Image.Image, restoration: FaceRestoration) -> Image.Image:
        """The picture with its faces restored."""
        return self._work(picture, restoration)

    def drop(self) -> None:
        """Nobody waits any more: cancel what is in work and refuse what is to come."""
        with self._lock:
            self._dropped = True
            for job_id in self._job_ids:
                self._engine.cancel(job_id)

    def _work(self, picture: Image.Image, work: Enlargement | FaceRestoration) -> Image.Image:
        levels = np.asarray(picture if picture.mode in {"RGB", "RGBA"} else picture.convert("RGB"), dtype=np.uint8)
        spec = RetouchSpec(picture=levels, work=work, task_id=self._task_id)
        with self._lock:
            if self._dropped:
                raise Dropped
            job_id = self._engine.submit(spec, self._standing)
            self._job_ids.add(job_id)
        self._note(job_id)
        event: Event = from_thread.run(result, self._engine, job_id)
        with self._lock:
            self._job_ids.discard(job_id)
        if not event.pictures:
            raise Dropped
        self.interrupted = self.interrupted or event.status.interrupted
        self.skipped = self.skipped or event.status.skipped
        return Image.fromarray(event.pictures[0].picture)
