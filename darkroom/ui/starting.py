"""What a page's pictures become in a request: `init_images`, `mask`, and a size that follows from the picture.

Knows what the browser's elements gather (`assets/gathering.js`) and the fields of requests; no Gradio.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from darkroom.ui.service import FieldError, Refused

Fields = Mapping[str, Any]

PLAIN = "img2img"
SKETCH = "sketch"
INPAINT = "inpaint"
INPAINT_SKETCH = "inpaint_sketch"
UPLOAD = "inpaint_upload"
BATCH = "batch"
SINGLE = "single"

MODES = (PLAIN, SKETCH, INPAINT, INPAINT_SKETCH, UPLOAD, BATCH)
"""How a picture is given, in the order of the tabs. The name is that of the element that holds it."""

MASKED = frozenset({INPAINT, INPAINT_SKETCH, UPLOAD})
UPLOADED_MASK = "inpaint_upload_mask"

MASK_FIELDS = (
    "mask_blur", "inpainting_mask_invert", "inpainting_fill", "inpaint_full_res", "inpaint_full_res_padding",
)  # fmt: skip
"""Fields of a request that say something about a mask."""


def start_of(fields: Fields, pictures: Fields) -> list[dict[str, Any]]:
    """For each request what it starts from, and how. Raises Refused where a picture or its mask is missing.

    `fields` are the controls; `pictures` those on show by the name of their element.
    """
    chosen = pictures_of(pictures, MODES, field="init_images")
    mode = _mode_of(pictures, MODES)
    return [
        {**_begun(fields, one), **(_masked(fields, mode, one, pictures) if mode in MASKED else {})} for one in chosen
    ]


def pictures_of(pictures: Fields, modes: Sequence[str], *, field: str) -> list[Fields]:
    """The pictures that somebody chose. Raises Refused, about a field, where there is none or too much of them."""
    if pictures.get("too_large"):
        raise _missing(field, "The pictures are larger than 64 MB together.")
    found = pictures.get(_mode_of(pictures, modes))
    chosen = found if isinstance(found, list) else [found]
    if not chosen or not all(chosen):
        raise _missing(field, "Choose a picture to begin with.")
    return list(chosen)


def without_masks(pictures: Fields) -> dict[str, Any]:
    """The first of the pictures on show, as if nothing were wanted of it but what it shows."""
    found = pictures.get(_mode_of(pictures, MODES))
    return {PLAIN: found[0] if isinstance(found, list) and found else found, "too_large": pictures.get("too_large")}


def _mode_of(pictures: Fields, modes: Sequence[str]) -> str:
    """The way whose tab is open."""
    return next((mode for mode in modes if mode in pictures), modes[0])


def _begun(fields: Fields, picture: Fields) -> dict[str, Any]:
    return {"init_images": [picture["image"]], **_size(fields, picture)}


def _size(fields: Fields, picture: Fields) -> dict[str, int]:
    """Width and height where they follow from the picture."""
    if not fields.get("resize_by"):
        return {}
    scale = float(fields.get("resize_scale") or 1)
    return {side: int(picture[side] * scale) for side in ("width", "height")}


def _masked(fields: Fields, mode: str, picture: Fields, pictures: Fields) -> dict[str, Any]:
    mask = (pictures.get(UPLOADED_MASK) or {}).get("image") if mode == UPLOAD else picture.get("mask")
    if not mask and mode == UPLOAD:
        raise _missing("mask", "Choose a picture for the mask: white is made anew, black is kept.")
    if not mask:
        raise _missing("mask", "Paint over the part of the picture that is to be made anew.")
    return {"mask": mask, **{name: fields[name] for name in MASK_FIELDS if name in fields}}


def _missing(field: str, text: str) -> Refused:
    return Refused(422, "missing_picture", (FieldError(field=field, text=text),))
