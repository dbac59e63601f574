"""SD upscale: a picture is enlarged, and its tiles are drawn anew one by one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from darkroom.api.models import Img2Img
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.codecs import to_pixels
from darkroom.images.tiles import Tiling, cover, cut, join
from darkroom.images.upscale import BUILT_IN, NONE, enlarge_by
from darkroom.scripts.plan import Ask, Made, Plan, Result, Script, Setting
from darkroom.scripts.requests import base64_of, changed, first_picture, with_seeds
from darkroom.scripts.signature import note, number, pick, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    info: str = note("Enlarges the picture by the factor; width and height are the size of a tile.")
    overlap: int = whole("Tile overlap", 64, 0, 256, 16)
    upscaler: str = pick("Upscaler", NONE, lambda lists: lists.upscalers or BUILT_IN)
    factor: float = number("Scale Factor", 2.0, 1.0, 4.0, 0.05)


def plan(request: Img2Img, arguments: Arguments, setting: Setting) -> Plan:
    """One picture for every batch that the request asks for."""
    request = with_seeds(changed(request, inpaint_full_res=False))
    rounds = request.n_iter or 1
    picture = _enlarged(request, arguments, setting)
    tiling = _tiling(request, picture, arguments, setting.max_images // rounds)
    tiles = [base64_of(tile) for tile in cut(picture, tiling)]
    notes = {"SD upscale overlap": arguments.overlap, "SD upscale upscaler": arguments.upscaler}
    joined: list[Made] = []
    text = ""
    for place in range(rounds):
        requests = _requests(request, tiles, (request.seed or 0) + place)
        outcomes = yield [Ask(request=one, notes=notes, planned=len(requests) * rounds) for one in requests]
        made = [one for outcome in outcomes for one in outcome.made]
        if len(made) < tiling.count:
            break
        text = text or made[0].text
        joined.append(_joined(made, tiling))
    pictures = tuple(joined)
    return Result(pictures=pictures, cells=pictures, texts=(text,) * len(pictures), sheets=pictures)


def _requests(request: Img2Img, tiles: Sequence[str], seed: int) -> list[Img2Img]:
    """As many tiles together as the batch size says. A1111: the seed grows by one from batch to batch."""
    size = max(request.batch_size or 1, 1)
    batches = [list(tiles[start : start + size]) for start in range(0, len(tiles), size)]
    return [
        changed(request, init_images=batch, batch_size=len(batch), n_iter=1, seed=seed + place)
        for place, batch in enumerate(batches)
    ]


def _joined(made: Sequence[Made], tiling: Tiling) -> Made:
    """A1111: the joined picture carries no text of its own."""
    sheet = join([Image.fromarray(one.picture) for one in made], tiling)
    return replace(made[-1], picture=to_pixels(sheet), text="")


def _tiling(request: Img2Img, picture: Image.Image, arguments: Arguments, most: int) -> Tiling:
    tile = (request.width or 0, request.height or 0)
    if not 0 <= arguments.overlap < min(tile):
        raise BadRequest("script_args[1]", arguments.overlap, f"from 0 to below {min(tile)}, the size of a tile")
    tiling = cover(picture.size, tile, arguments.overlap)
    if tiling.count > most:
        raise LimitExceeded("script_args[3]", f"{tiling.count} tiles", f"at most {most}")
    return tiling


def _enlarged(request: Img2Img, arguments: Arguments, setting: Setting) -> Image.Image:
    picture = first_picture(request, setting.max_pixels, setting.background)
    enlarge = setting.find_upscaler("script_args[2]", arguments.upscaler)
    if enlarge is None:
        return picture
    if arguments.factor * min(picture.size) < 8:
        raise BadRequest("script_args[3]", arguments.factor, "sides of at least 8 pixels must come of it")
    if arguments.factor**2 * picture.width * picture.height > setting.max_pixels:
        raise LimitExceeded("script_args[3]", arguments.factor, f"at most {setting.max_pixels} pixels")
    return enlarge_by(picture, arguments.factor, enlarge)


SCRIPT = Script(title="SD upscale", arguments=Arguments, plan=plan, tabs=("img2img",))
