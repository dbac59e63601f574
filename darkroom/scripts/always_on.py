"""The parts of every request that take arguments: what clients may send for them.

A1111: most of them act in its web UI only, and a request's own fields are the way to the same effect.
"""

from dataclasses import dataclass

from darkroom.scripts.plan import AlwaysOn
from darkroom.scripts.signature import flag, number, pick, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftInpainting:
    """A mask whose grey levels count."""

    enabled: bool = flag("Soft inpainting", False)
    bias: float = number("Schedule bias", 1, 0, 8, 0.1)
    strength: float = number("Preservation strength", 0.5, 0, 8, 0.05)
    contrast: float = number("Transition contrast boost", 4, 1, 32, 0.5)
    influence: float = number("Mask influence", 0, 0, 1, 0.05)
    difference_threshold: float = number("Difference threshold", 0.5, 0, 8, 0.25)
    difference_contrast: float = number("Difference contrast", 2, 0, 8, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiner:
    """A second checkpoint for the last steps."""

    enabled: bool = flag("Refiner", False)
    checkpoint: str = pick("Checkpoint", "", lambda lists: lists.checkpoints)
    switch_at: float = number("Switch at", 0.8, 0.01, 1.0, 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Steps, sampler and schedule."""

    steps: int = whole("Sampling steps", 20, 1, 150, 1)
    sampler: str = pick("Sampling method", "DPM++ 2M", lambda lists: lists.samplers)
    scheduler: str = pick("Schedule type", "Automatic", lambda lists: lists.schedulers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """Seed and variation seed."""

    seed: int = whole("Seed", -1, step=1)
    extra: bool = flag("Extra", False)
    subseed: int = whole("Variation seed", -1, step=1)
    strength: float = number("Variation strength", 0.0, 0, 1, 0.01)
    resize_width: int = whole("Resize seed from width", 0, 0, 2048, 8)
    resize_height: int = whole("Resize seed from height", 0, 0, 2048, 8)


PARTS = (
    AlwaysOn(title="Extra options", arguments=Nothing, listed_as="extra options"),
    AlwaysOn(title="Hypertile", arguments=Nothing, listed_as="Hypertile", described=False),
    AlwaysOn(title="Comments", arguments=Nothing, described=False),
    AlwaysOn(title="Soft Inpainting", arguments=SoftInpainting, listed_as="soft inpainting", tabs=("img2img",)),
    AlwaysOn(title="Refiner", arguments=Refiner, listed_as="refiner"),
    AlwaysOn(title="Sampler", arguments=Sampler, listed_as="sampler"),
    AlwaysOn(title="Seed", arguments=Seed, listed_as="seed"),
)
