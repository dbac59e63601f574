"""img2img alternative test: a picture is drawn anew from the noise that it would have come from."""

from dataclasses import dataclass

from darkroom.api.models import Img2Img
from darkroom.errors import BadRequest
from darkroom.jobs.spec import Inversion
from darkroom.scripts.plan import Ask, Plan, Result, Script, Setting
from darkroom.scripts.requests import changed, with_seeds
from darkroom.scripts.signature import flag, note, number, whole, words

_MOST_STEPS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the script takes."""

    info: str = note("Works best with a CFG scale of 2 or less.")
    override_sampler: bool = flag("Override `Sampling method` to Euler?(this method is built for it)", True)
    override_prompt: bool = flag(
        "Override `prompt` to the same value as `original prompt`?(and `negative prompt`)", True
    )
    original_prompt: str = words("Original prompt")
    original_negative_prompt: str = words("Original negative prompt")
    override_steps: bool = flag("Override `Sampling Steps` to the same value as `Decode steps`?", True)
    steps: int = whole("Decode steps", 50, 1, 150, 1)
    override_strength: bool = flag("Override `Denoising strength` to 1?", True)
    cfg_scale: float = number("Decode CFG scale", 1.0, 0.0, 15.0, 0.1)
    randomness: float = number("Randomness", 0.0, 0.0, 1.0, 0.01)
    adjusted: bool = flag("Sigma adjustment for finding noise for image", False)


def plan(request: Img2Img, arguments: Arguments, setting: Setting) -> Plan:
    """The request's own pictures."""
    del setting
    if not 1 <= arguments.steps <= _MOST_STEPS:
        raise BadRequest("script_args[6]", arguments.steps, f"from 1 to {_MOST_STEPS}")
    if not 0 <= arguments.randomness <= 1:
        raise BadRequest("script_args[9]", arguments.randomness, "from 0 to 1")
    inversion = Inversion(
        prompt=arguments.original_prompt,
        negative_prompt=arguments.original_negative_prompt,
        steps=arguments.steps,
        cfg_scale=arguments.cfg_scale,
        randomness=arguments.randomness,
        adjusted=arguments.adjusted,
    )
    notes = {
        "Decode prompt": arguments.original_prompt,
        "Decode negative prompt": arguments.original_negative_prompt,
        "Decode CFG scale": arguments.cfg_scale,
        "Decode steps": arguments.steps,
        "Randomness": arguments.randomness,
        "Sigma Adjustment": arguments.adjusted,
    }
    ask = Ask(request=_overridden(with_seeds(request), arguments), notes=notes, inversion=inversion)
    [outcome] = yield [ask]
    return Result(pictures=outcome.made, cells=outcome.made, texts=tuple(made.text for made in outcome.made))


def _overridden(request: Img2Img, arguments: Arguments) -> Img2Img:
    if arguments.override_sampler:
        request = changed(request, sampler_name="Euler")
    if arguments.override_prompt:
        request = changed(request, prompt=arguments.original_prompt, negative_prompt=arguments.original_negative_prompt)
    if arguments.override_steps:
        request = changed(request, steps=arguments.steps)
    if arguments.override_strength:
        request = changed(request, denoising_strength=1.0)
    return request


SCRIPT = Script(title="img2img alternative test", arguments=Arguments, plan=plan, tabs=("img2img",))
