"""Enlarging a finished picture, once or with two upscalers blended, and the notes that say what was done.

Knows pixels and upscalers as functions. Knows no request, no network and no file.
"""

from dataclasses import dataclass

from PIL import Image

from darkroom.images.upscale import Enlarge, enlarge_by

_BLACK = "#000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upscaling:
    """How a picture is enlarged: `factor` times, or until it covers `size` (width, height), and with `crop` is exactly
    that.

    `upscalers` are one or two names with their functions; the second is laid over the first with `visibility`, 0..1.
    """

    upscalers: tuple[tuple[str, Enlarge], ...]
    factor: float = 1.0
    size: tuple[int, int] | None = None
    crop: bool = False
    visibility: float = 0.0

    def scale(self, picture: Image.Image) -> float:
        """The factor for this picture."""
        if self.size is None:
            return self.factor
        return max(self.size[0] / picture.width, self.size[1] / picture.height)

    def sides(self, picture: Image.Image) -> tuple[int, int]:
        """Width and height before cropping: rounded down to multiples of 8."""
        scale = self.scale(picture)
        return int(picture.width * scale // 8 * 8), int(picture.height * scale // 8 * 8)


def upscale(picture: Image.Image, plan: Upscaling) -> tuple[Image.Image, dict[str, str]]:
    """The picture (RGB or RGBA) enlarged, and notes on it. `plan.sides` must leave at least one pixel."""
    notes: dict[str, str] = {}
    if plan.size is None:
        notes["Postprocess upscale by"] = str(plan.factor)
    else:
        notes["Postprocess upscale to"] = f"{plan.size[0]}x{plan.size[1]}"
    results = [_enlarged(picture, plan, enlarge) for _, enlarge in plan.upscalers]
    result = results[0] if len(results) == 1 else Image.blend(results[0], results[1], plan.visibility)
    if plan.size and plan.crop:
        notes["Postprocess crop to"] = f"{plan.size[0]}x{plan.size[1]}"
    titles = ("Postprocess upscaler", "Postprocess upscaler 2")
    return result, {**notes, **{title: name for title, (name, _) in zip(titles, plan.upscalers, strict=False)}}


def _enlarged(picture: Image.Image, plan: Upscaling, enlarge: Enlarge) -> Image.Image:
    result = enlarge_by(picture, plan.scale(picture), enlarge)
    if plan.size is None or not plan.crop:
        return result
    # A1111: rounding may leave the picture smaller than what it should cover; what is missing is black.
    sheet = Image.new("RGB", plan.size, _BLACK)
    sheet.paste(result, (plan.size[0] // 2 - result.width // 2, plan.size[1] // 2 - result.height // 2))
    return sheet
