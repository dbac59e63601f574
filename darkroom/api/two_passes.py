"""Large pictures of models that draw only small ones: laid out at the native size, then refined at the size asked for.

Knows a request's sizes and what the checkpoint says of its own; decides nothing else.
"""

from darkroom.api.models import Generation, Txt2Img
from darkroom.jobs.spec import CheckpointInfo

UPSCALER = "Lanczos"
# With more of it a large frame's own ideas of the object begin to show.
REFINING_STRENGTH = 0.2


def in_two_passes(wire: Generation, size: tuple[int, int], checkpoint: CheckpointInfo) -> Generation:
    """The request with hires fix where its `size`, (width, height), is more than the checkpoint can lay out; else the
    request itself.

    Real checkpoints state no `largest_size`, so what they are asked for is what they draw.
    """
    largest = checkpoint.largest_size
    if largest is None or not isinstance(wire, Txt2Img) or wire.enable_hr or max(size) <= largest:
        return wire
    width, height = layout_size(*size, checkpoint.native_size)
    return wire.model_copy(
        update={
            **_unasked(),
            "enable_hr": True,
            "width": width,
            "height": height,
            # A latent holds whole cells of 8 pixels; hires fix would round what is more up.
            "hr_resize_x": size[0] // 8 * 8,
            "hr_resize_y": size[1] // 8 * 8,
            "hr_upscaler": UPSCALER,
            "denoising_strength": REFINING_STRENGTH,
        }
    )


def _unasked() -> dict[str, object]:
    """The fields of a second pass as nobody set them: a client may send some without asking for that pass."""
    fields = Txt2Img.model_fields.items()
    return {name: field.default for name, field in fields if name.startswith(("hr_", "firstpass_", "firstphase_"))}


def layout_size(width: int, height: int, native: int) -> tuple[int, int]:
    """The proportions of width x height with the longer side `native` pixels; sides in multiples of 8."""
    factor = native / max(width, height)
    return _side(width * factor), _side(height * factor)


def _side(length: float) -> int:
    return max(8, round(length / 8) * 8)
