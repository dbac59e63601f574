"""X/Y/Z plot: the same request for every combination of up to three things, as a grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from darkroom.api.models import Generation
from darkroom.errors import BadRequest, LimitExceeded
from darkroom.images.captions import Caption, captioned
from darkroom.images.codecs import Pixels
from darkroom.images.grid import tile
from darkroom.scripts.plan import Ask, Made, Outcome, Plan, Result, Script, Setting
from darkroom.scripts.requests import changed, drawn, with_seeds
from darkroom.scripts.signature import check_margin, flag, pick, values, whole, words
from darkroom.scripts.xyz_axes import NOTHING, SEEDS, Axis, Value, axes_of, labels_of, read_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    x_type: str = pick("X type", "Seed", labels_of, absent=NOTHING)
    x_text: str = words("X values")
    x_picked: tuple[str, ...] = values("X values")
    y_type: str = pick("Y type", NOTHING, labels_of, absent=NOTHING)
    y_text: str = words("Y values")
    y_picked: tuple[str, ...] = values("Y values")
    z_type: str = pick("Z type", NOTHING, labels_of, absent=NOTHING)
    z_text: str = words("Z values")
    z_picked: tuple[str, ...] = values("Z values")
    legend: bool = flag("Draw legend", True)
    include_cells: bool = flag("Include Sub Images", False)
    include_sheets: bool = flag("Include Sub Grids", False)
    keep_seeds: bool = flag("Keep -1 for seeds", False)
    vary_x: bool = flag("Vary seeds for X", False)
    vary_y: bool = flag("Vary seeds for Y", False)
    vary_z: bool = flag("Vary seeds for Z", False)
    margin: int = whole("Grid margins (px)", 0, 0, 500, 2)
    use_text: bool = flag("Use text inputs instead of dropdowns", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One axis with its values; `text` is what the client wrote."""

    name: str
    axis: Axis
    values: tuple[Value, ...]
    text: str
    vary: bool

    def notes(self, *, fixed: bool) -> Mapping[str, object]:
        """What the grid's generation text says of it."""
        if self.axis.label == NOTHING:
            return {}
        found: dict[str, object] = {f"{self.name} Type": self.axis.label, f"{self.name} Values": self.text}
        if fixed and self.axis.label in SEEDS:
            found[f"Fixed {self.name} Values"] = ", ".join(map(str, self.values))
        return found


Place = tuple[int, int, int]


def plan(request: Generation, arguments: Arguments, setting: Setting) -> Plan:
    """The grid, and where asked for the grid of every Z value and the cells."""
    if not arguments.keep_seeds:
        request = with_seeds(request)
    check_margin("script_args[16]", arguments.margin)
    sides = _sides(arguments, setting)
    _check_size(request, sides, setting)
    places = _order(sides)
    asks = [Ask(request=_cell(request, sides, place), may_fail=True) for place in places]
    outcomes = yield asks
    found = dict(zip(places, outcomes, strict=True))
    return _result(found, sides, arguments, setting)


def _sides(arguments: Arguments, setting: Setting) -> tuple[_Side, _Side, _Side]:
    axes = {axis.label: axis for axis in axes_of(setting.lists.tab)}
    found = []
    for place, name in enumerate("xyz"):
        axis = axes[getattr(arguments, f"{name}_type")]
        text, picked = getattr(arguments, f"{name}_text"), getattr(arguments, f"{name}_picked")
        field = f"script_args[{3 * place + 1}]"
        chosen = () if arguments.use_text else picked
        read = read_values(axis, text, chosen, setting.lists, field)
        if not read:
            raise BadRequest(field, text, f"at least one value for {axis.label}")
        if axis.label in SEEDS and not arguments.keep_seeds:
            read = [drawn(value) for value in read]
        shown = ", ".join(chosen) if chosen and axis.choices else text
        vary = getattr(arguments, f"vary_{name}")
        found.append(_Side(name=name.upper(), axis=axis, values=tuple(read), text=shown, vary=vary))
    return found[0], found[1], found[2]


def _check_size(request: Generation, sides: Sequence[_Side], setting: Setting) -> None:
    count = math.prod(len(side.values) for side in sides)
    if count > setting.max_images:
        raise LimitExceeded("script_args", f"{count} cells", f"at most {setting.max_images}")
    pixels = count * (request.width or 0) * (request.height or 0)
    if pixels > setting.max_grid_pixels:
        raise LimitExceeded("script_args", f"{pixels} pixels", f"at most {setting.max_grid_pixels} in a grid")


def _order(sides: Sequence[_Side]) -> list[Place]:
    """The places of all cells (x, y, z) in the order in which they are made: costly axes change least often."""
    outer = sorted(range(3), key=lambda n: (sides[n].axis.cost, n), reverse=True)
    places = []
    for indices in product(*(range(len(sides[n].values)) for n in outer)):
        by_axis = dict(zip(outer, indices, strict=True))
        places.append((by_axis[0], by_axis[1], by_axis[2]))
    return places


def _cell(request: Generation, sides: Sequence[_Side], place: Place) -> Generation:
    """The request of one cell. Its first picture is what counts, so it is the only one that is made."""
    several = len(getattr(request, "init_images", None) or ()) > 1
    request = changed(request, n_iter=1, **({} if several else {"batch_size": 1}))
    for side, index in zip(sides, place, strict=True):
        request = side.axis.apply(request, side.axis, side.values[index], side.values)
    stride, offset = 1, 0
    for side, index in zip(sides, place, strict=True):
        if side.vary:
            offset += index * stride
            stride *= len(side.values)
    seed = request.seed
    return changed(request, seed=seed + offset) if offset and seed is not None and seed != -1 else request


def _result(found: Mapping[Place, Outcome], sides: Sequence[_Side], arguments: Arguments, setting: Setting) -> Result:
    xs, ys, zs = (range(len(side.values)) for side in sides)
    outcomes = [found[x, y, z] for z in zs for y in ys for x in xs]
    cells = [outcome.made[0] for outcome in outcomes if outcome.made]
    if not cells:
        return Result(pictures=(), cells=(), texts=())
    pictures = [_picture(outcome, cells[0].picture) for outcome in outcomes]
    per_sheet = len(xs) * len(ys)
    parts = [pictures[start : start + per_sheet] for start in range(0, len(pictures), per_sheet)]
    sheets = [Made(picture=_sheet(part, sides, arguments, setting), text="", seed=cells[0].seed) for part in parts]
    grid = replace(sheets[0], picture=_beside([sheet.picture for sheet in sheets], sides, arguments, setting))
    first = next(outcome for outcome in outcomes if outcome.made)
    notes: dict[str, object] = {"Script": SCRIPT.title}
    for side in sides:
        notes |= side.notes(fixed=not arguments.keep_seeds)
    text = first.describe(notes)
    shown = sheets if arguments.include_sheets else []
    return Result(
        pictures=(grid, *shown, *(cells if arguments.include_cells else ())),
        cells=tuple(cells),
        texts=(text, *(text for _ in shown), *(cell.text for cell in cells)),
        sheets=(grid, *shown),
        first=1,
    )


def _picture(outcome: Outcome, like: Pixels) -> Pixels:
    """A cell's picture; black where it failed or was never begun."""
    return outcome.made[0].picture if outcome.made else np.zeros_like(like)


def _sheet(pictures: Sequence[Pixels], sides: Sequence[_Side], arguments: Arguments, setting: Setting) -> Pixels:
    """The grid of one Z value."""
    x, y, _ = sides
    if not arguments.legend:
        empty = Caption(text="")
        return captioned(
            pictures, [[empty]] * len(x.values), [[empty]] * len(y.values), margin=arguments.margin, ink=setting.ink
        )
    return captioned(pictures, _captions(x), _captions(y), margin=arguments.margin, ink=setting.ink)


def _beside(sheets: Sequence[Pixels], sides: Sequence[_Side], arguments: Arguments, setting: Setting) -> Pixels:
    """The grids of all Z values side by side."""
    if len(sheets) == 1 and not (arguments.legend and sides[2].axis.label != NOTHING):
        return sheets[0]
    if not arguments.legend:
        return tile(sheets, 1, setting.grid_background)
    return captioned(sheets, _captions(sides[2]), [[Caption(text="")]], ink=setting.ink)


def _captions(side: _Side) -> list[list[Caption]]:
    return [[Caption(text=side.axis.show(value))] for value in side.values]


SCRIPT = Script(title="X/Y/Z plot", arguments=Arguments, plan=plan)
