"""Enlarging pictures and restoring faces on the device: what a job asks for as a whole is asked here piece by piece.

A piece is one evaluation: between two of them other jobs get their turn, and an interrupt is heard. Knows files, pixels
and networks; knows no latents. Owned by the device thread alone.
"""

from collections.abc import Callable, Generator, Hashable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from darkroom.engine.picture_networks import PictureNetworks
from darkroom.errors import LimitExceeded, NotInstalled, UnknownName
from darkroom.images.codecs import to_pixels
from darkroom.images.tiles import cover_for_network, retouch
from darkroom.images.upscale import BUILT_IN, RESAMPLERS, Enlarging, enlarge_to, enlarging_to
from darkroom.jobs.networks import UpscalerInfo, lack_of
from darkroom.jobs.ops import Answer, EnlargeTile, Interrupted, Program, RestoreFace, RestoreFaces, Upscale
from darkroom.jobs.retouching import Enlargement, RetouchSpec
from darkroom.jobs.spec import FaceRestoration, Picture
from darkroom.nets.faces.alignment import cut_out, lay_back, transform_of
from darkroom.nets.faces.detection import FaceDetector
from darkroom.nets.faces.restorer import load_restorer, restore
from darkroom.nets.store import Store
from darkroom.nets.upscalers.network import PictureNetwork, load_network

ROOM = 4
"""How many times the largest picture that is taken in an upscaler may make on its way: it is reduced again after."""

Pieces = Generator[EnlargeTile | RestoreFace, Picture, Picture]
"""The evaluations of one picture, and the picture in the end."""

Load = Callable[[Path, torch.device, torch.dtype], PictureNetwork]


class Retouching:
    """The networks of finished pictures, which the store keeps beside all others."""

    def __init__(
        self,
        networks: PictureNetworks,
        store: Store,
        device: torch.device,
        dtype: torch.dtype,
        *,
        max_picture_pixels: int,
    ) -> None:
        self._networks = networks
        self._store = store
        self._device = device
        self._dtype = dtype
        self._max_pixels = ROOM * max_picture_pixels

    def expanded(self, program: Program) -> Program:
        """The program with what it asks about whole pictures asked in pieces."""
        answer: Answer = None
        try:
            op = next(program)
            while True:
                try:
                    if isinstance(op, Upscale):
                        answer = yield from self.enlarged(op)
                    elif isinstance(op, RestoreFaces):
                        answer = yield from self.restored(op.picture, op.restoration)
                    else:
                        answer = yield op
                except Interrupted as stop:
                    op = program.throw(stop)
                else:
                    op = program.send(answer)
        except StopIteration as end:
            picture: Picture = end.value
            return picture
        finally:
            program.close()

    def program(self, spec: RetouchSpec) -> Program:
        """The program of a job that works on a finished picture. Interrupted, it gives the picture as it was."""
        if isinstance(spec.work, FaceRestoration):
            return (yield from self.restored(spec.picture, spec.work))
        try:
            drawn = yield from self._once(Image.fromarray(spec.picture), spec.work)
            return np.asarray(drawn, dtype=np.uint8)
        except Interrupted:
            return spec.picture

    def enlarged(self, op: Upscale) -> Pieces:
        """The picture at exactly its new size; by Lanczos if the job is interrupted.

        Raises UnknownName, NotInstalled, BadModelFile, LimitExceeded.
        """
        if op.upscaler in BUILT_IN:
            return enlarge_to(op.picture, op.size, RESAMPLERS.get(op.upscaler))
        try:
            return (yield from self._by_network(op))
        except Interrupted:
            return enlarge_to(op.picture, op.size, None)

    def _by_network(self, op: Upscale) -> Pieces:
        steps: Enlarging = enlarging_to(Image.fromarray(op.picture), op.size)
        try:
            shown = next(steps)
            while True:
                shown = steps.send((yield from self._once(shown, Enlargement(upscaler=op.upscaler, tiles=op.tiles))))
        except StopIteration as end:
            return to_pixels(end.value)

    def _once(self, picture: Image.Image, work: Enlargement) -> Generator[EnlargeTile, Picture, Image.Image]:
        """The picture shown to a network once. What is transparent stays so."""
        self._check_room(picture, work.upscaler)
        tiling = cover_for_network(picture.size, work.tiles.side, work.tiles.overlap, mean=work.tiles.mean)
        steps = retouch(picture.convert("RGB"), tiling)
        shown, done = next(steps), 0
        try:
            while True:
                answer = yield EnlargeTile(
                    upscaler=work.upscaler, picture=to_pixels(shown), step=done, steps=tiling.count
                )
                shown, done = steps.send(Image.fromarray(answer)), done + 1
        except StopIteration as end:
            result: Image.Image = end.value
        if picture.mode == "RGBA":
            result.putalpha(picture.getchannel("A").resize(result.size, Image.Resampling.LANCZOS))
        return result

    def _check_room(self, picture: Image.Image, upscaler: str) -> None:
        scale = self._upscaler(upscaler).scale
        width, height = picture.width * scale, picture.height * scale
        if width * height > self._max_pixels:
            raise LimitExceeded(
                "upscaler", upscaler, f"at most {self._max_pixels} pixels on the way, this makes {width}x{height}"
            )

    def restored(self, picture: Picture, restoration: FaceRestoration) -> Pieces:
        """The picture with its faces restored, one after another, the largest first. Without the file as it was."""
        info = self._networks.face_restorer(restoration.restorer)
        if info.filename is None:
            return picture
        faces = self._detector.find(picture[..., :3])
        drawn = np.ascontiguousarray(picture[..., :3])
        for place, face in enumerate(faces):
            transform = transform_of(face)
            before = cut_out(drawn, transform)
            after = yield RestoreFace(
                restorer=restoration.restorer,
                picture=before,
                weight=restoration.weight,
                step=place,
                steps=len(faces),
            )
            drawn = lay_back(drawn, before, after, transform)
        if restoration.unload:
            self._store.drop(_key(info.filename))
        return np.concatenate([drawn, picture[..., 3:]], axis=-1)

    @cached_property
    def _detector(self) -> FaceDetector:
        return FaceDetector()

    def answer(self, ops: Sequence[EnlargeTile | RestoreFace]) -> list[Picture]:
        """One picture per piece. Raises UnknownName, NotInstalled, BadModelFile."""
        return [self._answer(op) for op in ops]

    def _answer(self, op: EnlargeTile | RestoreFace) -> Picture:
        if isinstance(op, RestoreFace):
            return restore(self._restorer(op.restorer), op.picture, op.weight)
        # A1111: networks are shown blue first, which they were not trained on.
        blue_first = self._info(op.upscaler).family != "Darkroom"
        return self._upscaler(op.upscaler).enlarge(op.picture, blue_first=blue_first)

    def _info(self, name: str) -> UpscalerInfo:
        info = self._networks.find_upscaler(name)
        if info is None:
            raise UnknownName("upscaler", name, [*BUILT_IN, *(info.name for info in self._networks.upscalers())])
        return info

    def _upscaler(self, name: str) -> PictureNetwork:
        info = self._info(name)
        lack = lack_of(info)
        if lack or info.filename is None:
            raise NotInstalled("upscaler", name, lack or "its file is missing")
        return self._load(info.filename, load_network, self._dtype)

    def _restorer(self, name: str) -> PictureNetwork:
        info = self._networks.face_restorer(name)
        if info.filename is None:
            raise NotInstalled("face restorer", name, f"its file is missing: {info.wanted}")
        return self._load(info.filename, load_restorer, torch.float32)  # as they are trained

    def _load(self, filename: str, load: Load, dtype: torch.dtype) -> PictureNetwork:
        return self._store.keep(_key(filename), filename, lambda: load(Path(filename), self._device, dtype))


def _key(filename: str) -> Hashable:
    """What a network is kept under."""
    return "picture network", filename
