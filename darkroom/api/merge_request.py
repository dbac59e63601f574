"""What a request for a merge of checkpoints holds. Knows no route and no checkpoint."""

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from darkroom.api.models import Wire
from darkroom.coerce import Bool, Float, Object, Text, read_float
from darkroom.jobs.merging import CONFIG_SOURCES, METHODS

NO_VAE = "None"
KEPT = "keep"
LEAST, MOST = -2.0, 2.0

WAYS: tuple[str, ...] = METHODS
SOURCES: tuple[str, ...] = CONFIG_SOURCES
FORMATS = (KEPT, "fp32", "fp16", "bf16")
"""What `method`, `config_source` and `dtype` may be."""


def _numbers(value: object) -> list[float]:
    """Numbers from a list, or from a text with commas between them."""
    items = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise PydanticCustomError("type_error.list", "value is not a valid list")
    return [read_float(item) for item in items]


class Merge(Wire):
    """A merge of checkpoints. Unlike in A1111's requests, unknown fields are refused: a slip would cost a file."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"a": "dreamer", "b": "painter", "multiplier": 0.3}]}
    )

    a: Text = Field(
        title="Primary model (A)",
        description="The checkpoint whose weights are changed: a name of /sdapi/v1/sd-models.",
    )
    b: Text = Field(
        "", title="Secondary model (B)", description="The second one; every method but No interpolation needs it."
    )
    c: Text = Field("", title="Tertiary model (C)", description="The third one, for Add difference.")
    method: Text = Field(
        "Weighted sum",
        title="Interpolation method",
        description="Weighted sum, (1-m)A + mB; Add difference, A + m(B-C); No interpolation, A alone.",
    )
    multiplier: Float = Field(
        0.3,
        title="Multiplier (M)",
        description="m, from -2 to 2.",
        json_schema_extra={"x-usual": {"from": 0, "to": 1, "step": 0.05}},
    )
    block_weights: Annotated[list[float], BeforeValidator(_numbers)] = Field(
        [],
        title="Block weights",
        description="m of the UNet's blocks IN00 to OUT11, 25 numbers, for XL 19; one more is for the rest, first.",
    )
    dtype: Text = Field(
        KEPT, title="Number format", description="Number format of the result's weights: keep, fp32, fp16 or bf16."
    )
    vae: Text = Field(NO_VAE, title="Bake in VAE", description="A name of /sdapi/v1/sd-vae to bake in, or None.")
    discard: Text = Field(
        "",
        title="Discard weights with matching name",
        description="Regular expression; weights in whose names it is found are left out.",
    )
    name: Text = Field(
        "", title="Custom name", description="File name without its ending; empty makes one of the parents' names."
    )
    overwrite: Bool = Field(False, title="Overwrite", description="Replace a file that has the name already.")
    config_source: Text = Field(
        SOURCES[0],
        title="Copy config from",
        description="Whose YAML goes beside the result: A, B or C (the first that has one), B, C, Don't.",
    )
    save_metadata: Bool = Field(True, title="Save metadata", description="Write texts into the file's header.")
    add_recipe: Bool = Field(
        True, title="Add merge recipe metadata", description="Among them what was merged, as A1111 writes it."
    )
    copy_metadata: Bool = Field(
        True, title="Copy metadata from merged models", description="Among them those of A, B and C."
    )
    metadata: Object = Field({}, title="Further metadata", description="Further texts.")
    task_id: Text = Field("", description="The client's own name for the merge, for /internal/progress.")
