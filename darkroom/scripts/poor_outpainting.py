"""Poor man's outpainting: a picture is laid on a larger ground, whose tiles are drawn where they are not covered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from darkroom.api.models import Img2Img
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.codecs import to_pixels
from darkroom.images.tiles import Tiling, cover, cut, join
from darkroom.scripts.borders import DIRECTIONS, Borders, borders
from darkroom.scripts.plan import Ask, Made, Plan, Result, Script, Setting
from darkroom.scripts.requests import base64_of, changed, first_picture, with_seeds
from darkroom.scripts.signature import choice, several, whole

FILLS = ("fill", "original", "latent noise", "latent nothing")

_MOST_TILES = 1024

# A1111: the text reaches it where a place among FILLS was meant: "fill" smears as any unknown number does, and the
# generation text, which looks for a 0, does not tell.
_UNTOLD_FILL = len(FILLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    pixels: int = whole("Pixels to expand", 128, 8, 256, 8)
    mask_blur: int = whole("Mask blur", 4, 0, 64, 1)
    fill: str = choice("Masked content", "fill", FILLS)
    directions: tuple[str, ...] = several("Outpainting direction", DIRECTIONS, DIRECTIONS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ground:
    """The picture on its larger ground, which is black where nothing is known yet, and how it is cut."""

    sheet: Image.Image
    ring: Borders
    size: tuple[int, int]
    tiling: Tiling

    def open_places(self) -> list[int]:
        """The numbers of the tiles that the picture does not cover."""
        corners = [(x, y) for y in self.tiling.ys for x in self.tiling.xs]
        return [place for place, corner in enumerate(corners) if not self._covers(corner)]

    def mask(self, inset: int) -> Image.Image:
        """White where something is missing, and `inset` pixels into the picture on the sides that grow."""
        ring, sheet = self.ring, self.sheet
        box = (
            ring.left + (inset if ring.left else 0),
            ring.up + (inset if ring.up else 0),
            # A1111: one column and row more than was meant, which Pillow draws too.
            sheet.width - ring.right - (inset if ring.right else 0),
            sheet.height - ring.down - (inset if ring.down else 0),
        )
        mask = Image.new("L", sheet.size, "white")
        if box[0] <= box[2] and box[1] <= box[3]:
            ImageDraw.Draw(mask).rectangle(box, fill="black")
        return mask

    def _covers(self, corner: tuple[int, int]) -> bool:
        left, top = corner[0] - self.ring.left, corner[1] - self.ring.up
        wide = left >= 0 and left + self.tiling.tile_width <= self.size[0]
        return wide and top >= 0 and top + self.tiling.tile_height <= self.size[1]


def plan(request: Img2Img, arguments: Arguments, setting: Setting) -> Plan:
    """One larger picture."""
    ground = _ground(request, arguments, setting)
    places = ground.open_places()
    if len(places) > setting.max_images:
        raise LimitExceeded("script_args[0]", f"{len(places)} tiles", f"at most {setting.max_images}")
    tiles = cut(ground.sheet, ground.tiling)
    outcomes = (yield _asks(_plain(request, arguments), ground, tiles, arguments)) if places else ()
    made = [outcome.made[0] for outcome in outcomes if outcome.made]
    if len(made) < len(places) or not made:
        return Result(pictures=(), cells=(), texts=())
    for place, one in zip(places, made, strict=True):
        tiles[place] = Image.fromarray(one.picture)
    joined: Made = replace(made[-1], picture=to_pixels(join(tiles, ground.tiling)), text="")
    return Result(pictures=(joined,), cells=(joined,), texts=(made[0].text,), sheets=(joined,))


def _plain(request: Img2Img, arguments: Arguments) -> Img2Img:
    """What the requests of all tiles have in common."""
    return with_seeds(
        changed(
            request,
            mask_blur=arguments.mask_blur * 2,
            inpainting_fill=FILLS.index(arguments.fill) or _UNTOLD_FILL,
            inpaint_full_res=False,
            inpainting_mask_invert=0,
            resize_mode=0,
            batch_size=1,
            n_iter=1,
        )
    )


def _ground(request: Img2Img, arguments: Arguments, setting: Setting) -> _Ground:
    tile = (request.width or 0, request.height or 0)
    if not 1 <= arguments.pixels < min(tile):
        raise BadRequest("script_args[0]", arguments.pixels, f"from 1 to below {min(tile)}, the size of a tile")
    if arguments.mask_blur < 0:
        raise BadRequest("script_args[1]", arguments.mask_blur, "at least 0 pixels")
    picture = first_picture(request, setting.max_pixels, setting.background)
    ring = borders(picture.size, arguments.pixels, arguments.directions)
    size = ring.grown(picture.size)
    if size[0] * size[1] > setting.max_pixels:
        raise LimitExceeded("script_args[0]", f"{size[0]}x{size[1]}", f"at most {setting.max_pixels} pixels")
    tiling = cover(size, tile, arguments.pixels)
    if tiling.count > _MOST_TILES:
        raise LimitExceeded("script_args[0]", f"{tiling.count} tiles", f"at most {_MOST_TILES}")
    sheet = Image.new("RGB", size)
    sheet.paste(picture, (ring.left, ring.up))
    return _Ground(sheet=sheet, ring=ring, size=picture.size, tiling=tiling)


def _asks(request: Img2Img, ground: _Ground, tiles: Sequence[Image.Image], arguments: Arguments) -> list[Ask]:
    """A request for every tile with something missing; seeds grow by one."""
    masks = cut(ground.mask(arguments.mask_blur * 2), ground.tiling)
    latent_masks = cut(ground.mask(arguments.mask_blur // 2), ground.tiling)
    return [
        Ask(
            request=changed(
                request,
                init_images=[base64_of(tiles[place])],
                mask=base64_of(masks[place]),
                latent_mask=base64_of(latent_masks[place]),
                seed=(request.seed or 0) + number,
            )
        )
        for number, place in enumerate(ground.open_places())
    ]


SCRIPT = Script(title="Poor man's outpainting", arguments=Arguments, plan=plan, tabs=("img2img",))
