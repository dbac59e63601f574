"""What the options say to checkpoints of SDXL's family beside the text, and which way of reading it their text encoders
do not know.
"""

from collections.abc import Iterator

from darkroom.errors import BadRequest
from darkroom.jobs.spec import JobSpec, SdxlOptions, Traits
from darkroom.options.values import OptionValues

_OPEN_CLIP = frozenset({"sd2", "sdxl", "refiner"})
"""The families of which a text encoder is OpenCLIP's."""


def sdxl_options(values: OptionValues) -> SdxlOptions:
    """What the options say."""
    return SdxlOptions(
        crop_top=values.sdxl_crop_top,
        crop_left=values.sdxl_crop_left,
        high_score=values.sdxl_refiner_high_aesthetic_score,
        low_score=values.sdxl_refiner_low_aesthetic_score,
        clip_l_skip=values.sdxl_clip_l_skip,
    )


def check_emphasis(spec: JobSpec) -> None:
    """Raises BadRequest where a checkpoint of the job has no old emphasis. A1111: fails on it while it draws."""
    if spec.old_emphasis and any(traits.family in _OPEN_CLIP for traits in _used(spec)):
        allowed = "false for checkpoints with a text encoder of OpenCLIP: Stable Diffusion 2 and SDXL"
        raise BadRequest("use_old_emphasis_implementation", True, allowed)


def _used(spec: JobSpec) -> Iterator[Traits]:
    """The traits of all checkpoints that take part."""
    yield spec.traits
    if spec.hires:
        yield spec.hires.traits
    if spec.refiner:
        yield spec.refiner.traits
