"""Prompt matrix: the parts of a prompt after its first `|` are switched on and off in every combination."""

from dataclasses import dataclass

from darkroom.api.models import Generation
from darkroom.errors import LimitExceeded
from darkroom.images.captions import Caption, captioned
from darkroom.scripts.plan import Ask, Made, Plan, Result, Script, Setting
from darkroom.scripts.requests import changed, with_seeds
from darkroom.scripts.signature import check_margin, choice, flag, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    put_at_start: bool = flag("Put variable parts at start of prompt", False)
    different_seeds: bool = flag("Use different seed for each picture", False)
    prompt_type: str = choice("Select prompt", "positive", ("positive", "negative"))
    delimiter: str = choice("Select joining char", "comma", ("comma", "space"))
    margin: int = whole("Grid margins (px)", 0, 0, 500, 2)


def plan(request: Generation, arguments: Arguments, setting: Setting) -> Plan:
    """One picture per combination; a grid of all comes first."""
    request = with_seeds(request)
    field = "prompt" if arguments.prompt_type == "positive" else "negative_prompt"
    parts = (getattr(request, field) or "").split("|")
    check_margin("script_args[4]", arguments.margin)
    if len(parts) > setting.max_images or 2 ** (len(parts) - 1) > setting.max_images:
        raise LimitExceeded(field, f"{len(parts)} parts", f"at most {setting.max_images} combinations")
    prompts = combinations(
        parts, first=not arguments.put_at_start, glue=", " if arguments.delimiter == "comma" else " "
    )
    step = 1 if arguments.different_seeds else 0
    asks = [
        Ask(
            request=changed(
                request,
                **{field: prompt},
                seed=(request.seed or 0) + place * step,
                subseed=(request.subseed or 0) + place,
                batch_size=1,
                n_iter=1,
            )
        )
        for place, prompt in enumerate(prompts)
    ]
    outcomes = yield asks
    cells = tuple(made for outcome in outcomes for made in outcome.made)
    if len(cells) < len(prompts):  # interrupted: a grid with holes would say something else
        return Result(pictures=cells, cells=cells, texts=tuple(cell.text for cell in cells))
    grid = _grid(parts[1:], cells, arguments.margin, setting)
    texts = (cells[0].text, *(cell.text for cell in cells))
    return Result(pictures=(grid, *cells), cells=cells, texts=texts, sheets=(grid,), first=1)


def combinations(parts: list[str], *, first: bool, glue: str) -> list[str]:
    """Every combination: number c has part n if bit n of c is set. The fixed part stands first, or last."""
    fixed, *variable = (part.strip().strip(", ") for part in parts)
    found = []
    for number in range(2 ** len(variable)):
        chosen = [part for place, part in enumerate(variable) if number >> place & 1]
        found.append(glue.join([fixed, *chosen] if first else [*chosen, fixed]))
    return found


def _grid(parts: list[str], cells: tuple[Made, ...], margin: int, setting: Setting) -> Made:
    """Half of the parts vary over the columns, the others over the rows; those that are off are crossed out."""
    middle = (len(parts) + 1) // 2
    sheet = captioned(
        [cell.picture for cell in cells],
        _captions(parts[:middle]),
        _captions(parts[middle:]),
        margin=margin,
        ink=setting.ink,
    )
    return Made(picture=sheet, text="", seed=cells[0].seed)


def _captions(parts: list[str]) -> list[list[Caption]]:
    return [
        [Caption(text=part.strip(), active=bool(number >> place & 1)) for place, part in enumerate(parts)]
        for number in range(2 ** len(parts))
    ]


SCRIPT = Script(title="Prompt matrix", arguments=Arguments, plan=plan)
