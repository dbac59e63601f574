"""Test strip: the same picture at several strengths of guidance, side by side."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from darkroom.api.models import Generation
from darkroom.errors import BadRequest
from darkroom.extensions import Extension
from darkroom.images.grid import tile
from darkroom.scripts.plan import Ask, Made, Plan, Result, Script, Setting
from darkroom.scripts.requests import changed, with_seeds
from darkroom.scripts.signature import number, whole

router = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes, in the order of `script_args`."""

    lowest: float = number("Lowest guidance", 2.0, 1, 30)
    highest: float = number("Highest guidance", 10.0, 1, 30)
    count: int = whole("Steps", 5, 2, 16)


def scales(lowest: float, highest: float, count: int) -> list[float]:
    """`count` values from one end to the other, evenly apart."""
    return [round(lowest + (highest - lowest) * place / (count - 1), 2) for place in range(count)]


def plan(request: Generation, arguments: Arguments, setting: Setting) -> Plan:
    """The strip, then the pictures that it is made of."""
    if not 2 <= arguments.count <= setting.max_images:
        raise BadRequest("script_args[2]", arguments.count, f"from 2 to {setting.max_images}")
    request = with_seeds(changed(request, batch_size=1, n_iter=1))
    values = scales(arguments.lowest, arguments.highest, arguments.count)
    outcomes = yield [Ask(request=changed(request, cfg_scale=value)) for value in values]
    made = tuple(one for outcome in outcomes for one in outcome.made)
    if not made:  # interrupted before the first picture
        return Result(pictures=(), cells=(), texts=())
    strip = Made(picture=tile([one.picture for one in made], 1, setting.grid_background), text=made[0].text)
    pictures = (strip, *made)
    return Result(pictures=pictures, cells=made, texts=tuple(one.text for one in pictures), sheets=(strip,), first=1)


@router.get("/scales")
def get_scales(
    lowest: Annotated[float, Query(ge=1, le=30)] = 2.0,
    highest: Annotated[float, Query(ge=1, le=30)] = 10.0,
    count: Annotated[int, Query(ge=2, le=16)] = 5,
) -> list[float]:
    """The strengths of guidance that the script would draw with."""
    return scales(lowest, highest, count)


extension = Extension(
    name="test-strip",
    version="1.0.0",
    scripts=(Script(title="Test strip", arguments=Arguments, plan=plan),),
    routers=(router,),
)
