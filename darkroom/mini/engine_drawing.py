"""Draws through the server's own engine, as a client's request would be drawn.

Knows how to put one weights file alone before an engine, and the requests that the gateway understands. Knows nothing
of networks and of what is measured.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from darkroom.api.convert import Prepared, to_spec
from darkroom.api.models import Generation, Img2Img, Txt2Img
from darkroom.api.results import finish
from darkroom.engine.client import Engine, result
from darkroom.engine.local import LocalEngine
from darkroom.images.codecs import to_base64
from darkroom.mini.drawing import DrawRequest
from darkroom.options.values import OptionValues
from darkroom.settings import Settings

SAMPLER = "Euler"
# Enough to fill the engine's batches, and fewer than the queue takes.
AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Darkroom:
    """An engine that hosts one checkpoint."""

    engine: Engine
    settings: Settings

    def draw(self, requests: Sequence[DrawRequest]) -> list[Image.Image]:
        """A `Draw`: one picture for each request."""
        return self._develop([self._prepare(Txt2Img.model_validate(fields_of(request))) for request in requests])

    def repaint(self, before: Image.Image, mask: Image.Image, request: DrawRequest) -> Image.Image:
        """A `Repaint`: the picture drawn anew from noise where the mask is white."""
        more = {
            "init_images": [as_base64(before)],
            "mask": as_base64(mask),
            "mask_blur": 0,
            "inpaint_full_res": False,
            "inpainting_fill": 1,
            "denoising_strength": 1.0,
        }
        [after] = self._develop([self._prepare(Img2Img.model_validate(fields_of(request) | more))])
        return after

    def _prepare(self, wire: Generation) -> Prepared:
        return to_spec(wire, OptionValues(), self.settings, self.engine.checkpoints(), self.engine)

    def _develop(self, prepared: Sequence[Prepared]) -> list[Image.Image]:
        pictures: list[Image.Image] = []
        for start in range(0, len(prepared), AT_ONCE):
            pictures += asyncio.run(develop(self.engine, prepared[start : start + AT_ONCE]))
        return pictures


def fields_of(request: DrawRequest) -> dict[str, object]:
    """The fields of a request as a client would send them."""
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative,
        "seed": request.seed,
        "width": request.pixels,
        "height": request.pixels,
        "steps": request.steps,
        "cfg_scale": request.cfg,
        "sampler_name": SAMPLER,
    }


def as_base64(picture: Image.Image) -> str:
    """The picture as a PNG in base64."""
    file = BytesIO()
    picture.save(file, "PNG")
    return to_base64(file.getvalue())


async def develop(engine: Engine, prepared: Sequence[Prepared]) -> list[Image.Image]:
    """Submits everything at once and waits for all of it. Raises what a job failed with."""

    async def one(each: Prepared) -> Image.Image:
        [shot] = finish(each, await result(engine, engine.submit(each.spec)))
        return Image.fromarray(shot.picture)

    return list(await asyncio.gather(*map(one, prepared)))


@contextmanager
def darkroom(weights: Path, precision: str = "auto") -> Iterator[Darkroom]:
    """An engine for one weights file and the YAML beside it; it stops at the end."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in (weights, weights.with_suffix(".yaml")):
            (folder / file.name).symlink_to(file.resolve())
        settings = Settings.model_validate({"data_dir": folder / "data", "ckpt_dir": folder, "precision": precision})
        engine = LocalEngine(settings)
        try:
            yield Darkroom(engine=engine, settings=settings)
        finally:
            engine.close()
