"""What OpenAI's clients send and get, field by field, with what this engine can do beyond it. Decides nothing."""

from pydantic import BaseModel, Field

from darkroom.api.models import Wire
from darkroom.coerce import Bool, Float, Int, Text


class ImageRequest(Wire):
    """The fields that both requests share: OpenAI's, then those that only this engine has."""

    prompt: Text = Field(description="What the pictures show.")
    model: Text | None = Field(
        None,
        description="An id of /v1/models. OpenAI's own names, like none at all, mean the checkpoint in use.",
    )
    n: Int | None = Field(1, description="Pictures.")
    size: Text | None = Field(
        "auto", description="WIDTHxHEIGHT in pixels; auto is the model's native size, or that of the picture edited."
    )
    quality: Text | None = Field(
        "auto",
        description="low, medium (standard, auto), high (hd), xhigh, max: 12, 20, 30, 40, 50 steps without `steps`.",
    )
    response_format: Text | None = Field(
        None, description="b64_json, or url: an address that leads to the picture for an hour."
    )
    output_format: Text | None = Field("png", description="png, jpeg or webp; each carries its generation text.")
    output_compression: Int | None = Field(
        None, description="0 to 100: quality of jpeg and webp; the option jpeg_quality if left out."
    )
    background: Text | None = Field("auto", description="auto or opaque.")
    stream: Bool | None = Field(False, description="Only false.")
    user: Text | None = Field(None, description="No effect.")
    negative_prompt: Text | None = Field("", description="What the pictures do not show.")
    seed: Int | None = Field(-1, description="-1 draws one; the pictures of a request count on from it.")
    steps: Int | None = Field(None, description="Sampling steps.")
    cfg_scale: Float | None = Field(7.0, description="How strongly the prompt guides.")
    sampler_name: Text | None = Field(None, description="A name of /sdapi/v1/samplers.")
    scheduler: Text | None = Field(None, description="A name or label of /sdapi/v1/schedulers.")


class GenerationRequest(ImageRequest):
    """Pictures from a text."""


class EditRequest(ImageRequest):
    """The fields of an edit beside its files."""

    strength: Float | None = Field(
        None, description="0 keeps the picture, 1 replaces it; 1 under a mask and 0.75 without one if left out."
    )


class ImageData(BaseModel):
    """One picture of an answer."""

    b64_json: str | None = Field(None, description="The picture's file as plain base64.")
    url: str | None = Field(None, description="Where the picture can be fetched, for an hour, without a password.")
    seed: int = Field(description="The seed that it was drawn from.")


class Images(BaseModel):
    """What both requests answer."""

    created: int = Field(description="When, in seconds since 1970.")
    background: str = "opaque"
    output_format: str
    quality: str
    size: str
    data: list[ImageData]


class ModelCard(BaseModel):
    """A checkpoint."""

    id: str = Field(description="What a request calls it.")
    object: str = "model"
    created: int = Field(description="When its file was last changed, in seconds since 1970.")
    owned_by: str = "darkroom"


class ModelList(BaseModel):
    """All checkpoints."""

    object: str = "list"
    data: list[ModelCard]
