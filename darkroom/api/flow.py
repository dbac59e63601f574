"""What a request means for checkpoints that were trained by flow matching: which sampler and schedule, how strongly the
prompt guides, and which text encoders read it.
"""

from dataclasses import replace

from darkroom.api.models import Generation
from darkroom.errors import BadRequest
from darkroom.jobs.spec import CheckpointInfo, FlowOptions, JobSpec
from darkroom.options.values import OptionValues
from darkroom.sampling.names import Resolved, Sampler, flow_scheduler

_AUTOMATIC = {"sd3": ("Normal", "SGM Uniform"), "flux": ("Simple", "Simple")}
"""The schedules that these families were published with, and those for solvers that look back or ahead: they would miss
the mark after the long last step of the first one.
"""

_NO_NEGATIVE = 1.0
"""FLUX.1 is told how strongly the prompt guides it; comparing it with another prompt as well costs twice the time."""


def flow_options(wire: Generation, values: OptionValues) -> FlowOptions:
    """What request and options say."""
    guidance = wire.distilled_cfg_scale
    return FlowOptions(t5=values.sd3_enable_t5, guidance=FlowOptions().guidance if guidance is None else guidance)


def settled_names(names: Resolved, checkpoint: CheckpointInfo) -> Resolved:
    """The names with the checkpoint's own schedule for "Automatic". Raises BadRequest for what follows no flow."""
    return replace(names, scheduler=settled_scheduler(names.sampler, names.scheduler, checkpoint))


def settled_scheduler(sampler: Sampler, scheduler: str, checkpoint: CheckpointInfo) -> str:
    """The scheduler's label; the checkpoint's own for "Automatic". Raises BadRequest for what follows no flow."""
    if checkpoint.traits.training.flow is None:
        return scheduler
    own, smooth = _AUTOMATIC[checkpoint.traits.family]
    return flow_scheduler(sampler, scheduler, smooth if sampler.scheduler else own)


def default_scale(checkpoint: CheckpointInfo) -> float | None:
    """How strongly the prompt guides where the request leaves it open; None for what is usual."""
    return _NO_NEGATIVE if checkpoint.traits.family == "flux" else None


def check_inversion(spec: JobSpec) -> None:
    """Raises BadRequest where the noise of a picture is looked for in a way that does not lead to it."""
    if spec.traits.training.flow and spec.init and spec.init.inversion:
        raise BadRequest("script_name", "img2img alternative test", "not with Stable Diffusion 3 or FLUX.1")
