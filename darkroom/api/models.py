"""What clients send and get, field by field, with A1111's names, order and defaults. Decides nothing."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from darkroom.api.leniency import leniencies
from darkroom.coerce import (
    Bool,
    Float,
    Int,
    List,
    Object,
    Share,
    Text,
    Texts,
    above,
    from_,
    one_of,
    read_list,
    up_to,
)
from darkroom.errors import BadRequest

Strength = Annotated[Float, AfterValidator(from_(-1000)), AfterValidator(up_to(1000))]
"""Far beyond what draws pictures, and far below what a network answers with what is no number."""

_RED = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAUUlEQVR42u3PMQ0AMAgAMJgaROA/yJoKDpLWQXO64rIXxwkICAgICAgICAgICAgICAg"
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAjs+82EAawe5o/VAAAAAElFTkSuQmCC"
)
"""A red picture of 64x64 pixels, for the examples of the documentation."""


def usual(start: float, stop: float, step: float) -> dict[str, JsonValue]:
    """The range that a control for a number offers. Other numbers may be taken all the same."""
    return {"x-usual": {"from": start, "to": stop, "step": step}}


def _example(**fields: Any) -> ConfigDict:
    """A request that the documentation shows."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Wire(BaseModel):
    """A request's JSON object. Unknown keys are ignored; an empty array is an empty object."""

    model_config = ConfigDict(extra="ignore")

    _leniencies: tuple[str, ...] = PrivateAttr(())

    @property
    def leniencies(self) -> tuple[str, ...]:
        """What of the object was passed over or read as another type."""
        return self._leniencies

    @model_validator(mode="wrap")
    @classmethod
    def _note_leniencies(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(value)
        if isinstance(value, dict):
            made._leniencies = leniencies(value, made)  # noqa: SLF001  its own
        return made

    @model_validator(mode="before")
    @classmethod
    def _check_object(cls, value: object) -> object:
        if isinstance(value, list) and not value:
            return {}
        if not isinstance(value, dict):
            raise PydanticCustomError("type_error.dict", "value is not a valid dict")
        return value


class Generation(Wire):
    """The fields that txt2img and img2img share, in the order in which `parameters` repeats them."""

    prompt: Text | None = Field("", title="Prompt", description="What the picture shows.")
    negative_prompt: Text | None = Field("", title="Negative prompt", description="What the picture does not show.")
    styles: Texts | None = Field(
        None,
        title="Styles",
        description="Names of /sdapi/v1/prompt-styles, applied in this order; unknown names are ignored.",
    )
    seed: Int | None = Field(-1, title="Seed", description="-1 draws one.")
    subseed: Int | None = Field(-1, title="Variation seed", description="Variation seed; -1 draws one.")
    subseed_strength: Strength | None = Field(
        0,
        title="Variation strength",
        json_schema_extra=usual(0, 1, 0.01),
        description="0 to 1: how far towards the variation seed's noise.",
    )
    seed_resize_from_h: Int | None = Field(
        -1,
        title="Resize seed from height",
        json_schema_extra=usual(0, 2048, 8),
        description="Pixels: the noise is made for this height and centred; both sizes above 0, else no effect.",
    )
    seed_resize_from_w: Int | None = Field(
        -1,
        title="Resize seed from width",
        json_schema_extra=usual(0, 2048, 8),
        description="Pixels: the noise is made for this width and centred; both sizes above 0, else no effect.",
    )
    sampler_name: Text | None = Field(None, title="Sampling method", description="A name of /sdapi/v1/samplers.")
    scheduler: Text | None = Field(None, title="Schedule type", description="A name or label of /sdapi/v1/schedulers.")
    batch_size: Int | None = Field(
        1,
        title="Batch size",
        json_schema_extra=usual(1, 8, 1),
        description="Pictures made together: 1 to the setting max_batch_size.",
    )
    n_iter: Int | None = Field(
        1,
        title="Batch count",
        json_schema_extra=usual(1, 100, 1),
        description="Batches made one after another, 1 and up; max_images bounds all pictures.",
    )
    steps: Int | None = Field(
        50,
        title="Sampling steps",
        json_schema_extra=usual(1, 150, 1),
        description="Sampling steps: 1 to the setting max_steps.",
    )
    cfg_scale: Strength | None = Field(
        7.0,
        title="CFG Scale",
        json_schema_extra=usual(1, 30, 0.5),
        description="How strongly the prompt guides; for FLUX.1 checkpoints 1 if left out.",
    )
    distilled_cfg_scale: Strength | None = Field(
        3.5,
        exclude=True,
        title="Distilled CFG Scale",
        json_schema_extra=usual(0, 30, 0.1),
        description="How strongly FLUX.1 dev is told that the prompt guides. Forge's field.",
    )
    width: Int | None = Field(
        512,
        title="Width",
        json_schema_extra=usual(64, 2048, 8),
        description="Pixels, up to the setting max_width; the checkpoint's native size if left out.",
    )
    height: Int | None = Field(
        512,
        title="Height",
        json_schema_extra=usual(64, 2048, 8),
        description="Pixels, up to the setting max_height; the checkpoint's native size if left out.",
    )
    restore_faces: Bool | None = Field(
        None, title="Restore faces", description="Restore faces afterwards; null takes the option face_restoration."
    )
    tiling: Bool | None = Field(
        None, title="Tiling", description="Edges that continue on the other side; null takes the option tiling."
    )
    do_not_save_samples: Bool | None = Field(False, description="No effect: save_images decides.")
    do_not_save_grid: Bool | None = Field(False, description="No effect: save_images decides.")
    eta: Strength | None = Field(
        None,
        title="Eta",
        json_schema_extra=usual(0, 1, 0.01),
        description="0 and up: noise of ancestral samplers and DDIM; null takes the option eta_ancestral or eta_ddim.",
    )
    denoising_strength: Float | None = Field(
        None,
        title="Denoising strength",
        json_schema_extra=usual(0, 1, 0.01),
        description="0 to 1: how far the second pass of hires fix departs from the first, which needs it.",
    )
    s_min_uncond: Float | None = Field(
        None,
        title="Negative guidance minimum sigma",
        json_schema_extra=usual(0, 15, 0.01),
        description="Sigma below which every other step leaves out the negative prompt; null takes the option.",
    )
    s_churn: Strength | None = Field(
        None,
        title="Sigma churn",
        json_schema_extra=usual(0, 100, 0.01),
        description="0 and up: noise that Euler, Heun and DPM2 add per step; null takes the option.",
    )
    s_tmax: Float | None = Field(
        None,
        title="Sigma tmax",
        json_schema_extra=usual(0, 999, 0.01),
        description="Highest sigma at which s_churn adds noise, 0 for no bound; null takes the option.",
    )
    s_tmin: Float | None = Field(
        None,
        title="Sigma tmin",
        json_schema_extra=usual(0, 10, 0.01),
        description="Lowest sigma at which s_churn adds noise; null takes the option.",
    )
    s_noise: Strength | None = Field(
        None,
        title="Sigma noise",
        json_schema_extra=usual(0, 1.1, 0.001),
        description="Factor of the noise that is added; null takes the option.",
    )
    override_settings: Object | None = Field(
        None, title="Override settings", description="Options for this request alone."
    )
    override_settings_restore_afterwards: Bool | None = Field(
        True, description="No effect: options of one request never change anything for others."
    )
    refiner_checkpoint: Text | None = Field(
        None,
        title="Refiner",
        description="Checkpoint that goes on from refiner_switch_at; null, empty or None for none.",
    )
    refiner_switch_at: Float | None = Field(
        None,
        title="Switch at",
        json_schema_extra=usual(0.01, 1, 0.01),
        description="0 to 1: share of the steps after which the refiner takes over; null is at once.",
    )
    disable_extra_networks: Bool | None = Field(
        False,
        title="Disable extra networks",
        description="Cut <lora:...> and <hypernet:...> out of the prompts and do not apply them.",
    )
    firstpass_image: Text | None = Field(None, description="Picture as base64 in place of the first pass of hires fix.")
    comments: Object | None = Field(None, description="No effect.")

    @property
    def sampler_index_or_default(self) -> str:
        """The old field for the sampler's name, which stands late in the order of either request."""
        return str(getattr(self, "sampler_index", "Euler"))

    @property
    def task_id(self) -> str:
        """The client's own name for the job, or nothing."""
        return getattr(self, "force_task_id", None) or ""


class Txt2Img(Generation):
    """The 55 fields of txt2img."""

    model_config = _example(prompt="a red apple", seed=7, steps=12, width=128, height=128, sampler_name="Euler a")

    enable_hr: Bool | None = Field(False, title="Hires. fix", description="Hires fix: draw, enlarge, and draw again.")
    firstphase_width: Int | None = Field(0, description="Pixels of the first pass, in place of width; 0 for none.")
    firstphase_height: Int | None = Field(0, description="Pixels of the first pass, in place of height; 0 for none.")
    hr_scale: Float | None = Field(
        2.0,
        title="Upscale by",
        json_schema_extra=usual(1, 4, 0.05),
        description="Factor of hires fix, above 0; used where hr_resize_x and hr_resize_y are 0.",
    )
    hr_upscaler: Text | None = Field(
        None,
        title="Upscaler",
        description="A name of /sdapi/v1/latent-upscale-modes or /sdapi/v1/upscalers; null is Latent.",
    )
    hr_second_pass_steps: Int | None = Field(
        0,
        title="Hires steps",
        json_schema_extra=usual(0, 150, 1),
        description="Steps of the second pass; 0 is as many as steps.",
    )
    hr_resize_x: Int | None = Field(
        0,
        title="Resize width to",
        json_schema_extra=usual(0, 2048, 8),
        description="Pixels: final width; 0 follows from the height.",
    )
    hr_resize_y: Int | None = Field(
        0,
        title="Resize height to",
        json_schema_extra=usual(0, 2048, 8),
        description="Pixels: final height; 0 follows from the width.",
    )
    hr_checkpoint_name: Text | None = Field(
        None, title="Hires checkpoint", description="Checkpoint of the second pass; null or empty for the same."
    )
    hr_sampler_name: Text | None = Field(
        None, title="Hires sampling method", description="Sampler of the second pass; null or empty for the same."
    )
    hr_scheduler: Text | None = Field(
        None, title="Hires schedule type", description="Schedule of the second pass; null for the same."
    )
    hr_prompt: Text | None = Field(
        "", title="Hires prompt", description="Prompt of the second pass; empty for the same."
    )
    hr_negative_prompt: Text | None = Field(
        "", title="Hires negative prompt", description="Negative prompt of the second pass; empty for the same."
    )
    force_task_id: Text | None = Field(None, description="The client's own name for the job, for /internal/progress.")
    sampler_index: Text = Field("Euler", description="The old name of sampler_name, used where that is empty.")
    script_name: Text | None = Field(
        None, title="Script", description="A name of /sdapi/v1/scripts, in any letter case; null or empty for none."
    )
    script_args: List = Field(
        [], description="Arguments of the script by position, all of them, as /sdapi/v1/script-info lists them."
    )
    send_images: Bool = Field(True, description="False answers without pictures; info is complete all the same.")
    save_images: Bool = Field(False, description="Write the pictures to files on the server, with grids.")
    alwayson_scripts: Object = Field({}, description="Arguments of always-on scripts: {name: {args: [...]}}.")
    infotext: Text | None = Field(
        None, description="Generation text that fills in what the request does not set itself."
    )


class Img2Img(Generation):
    """The 57 fields of img2img."""

    model_config = _example(
        init_images=[_RED], prompt="a green apple", seed=7, steps=12, width=128, height=128, denoising_strength=0.6
    )

    denoising_strength: Float = Field(
        0.75,
        title="Denoising strength",
        json_schema_extra=usual(0, 1, 0.01),
        description="0 keeps the picture, 1 replaces it.",
    )
    init_images: List | None = Field(None, description="Pictures as base64: one, or one per picture of a batch.")
    resize_mode: Int | None = Field(
        0, title="Resize mode", description="0 stretch, 1 crop, 2 fill, 3 stretch in latent space."
    )
    image_cfg_scale: Strength | None = Field(
        None,
        title="Image CFG Scale",
        json_schema_extra=usual(0, 3, 0.05),
        description="How strongly the picture guides, for InstructPix2Pix checkpoints.",
    )
    mask: Text | None = Field(
        None, description="What is repainted, as base64: white, or opaque if it has transparency."
    )
    mask_blur_x: Int | None = Field(4, description="Pixels: width of the mask's blur from left to right, 0 and up.")
    mask_blur_y: Int | None = Field(4, description="Pixels: width of the mask's blur from top to bottom, 0 and up.")
    mask_blur: Int | None = Field(
        None,
        title="Mask blur",
        json_schema_extra=usual(0, 64, 1),
        description="Pixels: sets mask_blur_x and mask_blur_y; null leaves them.",
    )
    mask_round: Bool | None = Field(True, description="Round the mask to repaint or keep, without shades.")
    inpainting_fill: Int | None = Field(
        0, title="Masked content", description="0 fill, 1 original, 2 latent noise, 3 latent nothing."
    )
    inpaint_full_res: Bool | None = Field(
        True, title="Inpaint area", description="Work on the region around the mask only."
    )
    inpaint_full_res_padding: Int | None = Field(
        0,
        title="Only masked padding, pixels",
        json_schema_extra=usual(0, 256, 4),
        description="Pixels around the mask that are worked on too, 0 and up.",
    )
    inpainting_mask_invert: Int | None = Field(
        0, title="Mask mode", description="0 repaints what the mask covers, 1 the rest."
    )
    initial_noise_multiplier: Strength | None = Field(
        None,
        title="Noise multiplier",
        json_schema_extra=usual(0, 1.5, 0.01),
        description="Factor of the first noise; null takes the option.",
    )
    latent_mask: Text | None = Field(None, description="Mask as base64 for the latent alone, in place of mask.")
    force_task_id: Text | None = Field(None, description="The client's own name for the job, for /internal/progress.")
    sampler_index: Text = Field("Euler", description="The old name of sampler_name, used where that is empty.")
    include_init_images: Bool = Field(False, description="Keep init_images and mask in the answer's parameters.")
    script_name: Text | None = Field(
        None, title="Script", description="A name of /sdapi/v1/scripts, in any letter case; null or empty for none."
    )
    script_args: List = Field(
        [], description="Arguments of the script by position, all of them, as /sdapi/v1/script-info lists them."
    )
    send_images: Bool = Field(True, description="False answers without pictures; info is complete all the same.")
    save_images: Bool = Field(False, description="Write the pictures to files on the server, with grids.")
    alwayson_scripts: Object = Field({}, description="Arguments of always-on scripts: {name: {args: [...]}}.")
    infotext: Text | None = Field(
        None, description="Generation text that fills in what the request does not set itself."
    )


class Generated(BaseModel):
    """What txt2img and img2img answer."""

    images: list[str] = Field(description="Pictures as plain base64.")
    parameters: dict[str, Any] = Field(description="The request with all its fields.")
    info: str = Field(description="A JSON document: seeds, prompts, generation texts.")


class PngInfo(Wire):
    """A picture to read notes from."""

    model_config = _example(image=_RED)

    image: Text = Field(title="Picture", description="The picture as base64.")


class Interrogate(Wire):
    """A picture to describe."""

    model_config = _example(image=_RED, model="clip")

    image: Text = Field("", title="Picture", description="The picture as base64.")
    model: Text = Field("clip", title="Network", description="clip (a sentence) or deepdanbooru (tags).")


class Extras(Wire):
    """The fields that both extras requests share."""

    resize_mode: Annotated[Literal[0, 1], BeforeValidator(one_of(0, 1))] = Field(
        0,
        title="Resize",
        description="0 enlarges by upscaling_resize, 1 to upscaling_resize_w x upscaling_resize_h.",
    )
    show_extras_results: Bool = Field(True, description="No effect.")
    gfpgan_visibility: Share = Field(
        0.0,
        title="GFPGAN visibility",
        json_schema_extra=usual(0, 1, 0.001),
        description="0 to 1: how much of GFPGAN's result is seen.",
    )
    codeformer_visibility: Share = Field(
        0.0,
        title="CodeFormer visibility",
        json_schema_extra=usual(0, 1, 0.001),
        description="0 to 1: how much of CodeFormer's result is seen.",
    )
    codeformer_weight: Share = Field(
        0.0,
        title="CodeFormer weight",
        json_schema_extra=usual(0, 1, 0.001),
        description="0 to 1; 0 changes faces most.",
    )
    upscaling_resize: Annotated[Float, AfterValidator(above(0))] = Field(
        2.0, title="Resize by", json_schema_extra=usual(1, 8, 0.05), description="Factor."
    )
    upscaling_resize_w: Annotated[Int, AfterValidator(from_(1))] = Field(512, title="Width", description="Pixels.")
    upscaling_resize_h: Annotated[Int, AfterValidator(from_(1))] = Field(512, title="Height", description="Pixels.")
    upscaling_crop: Bool = Field(
        True,
        title="Crop to fit",
        description="Cut off, or fill with black, what departs from the wanted size.",
    )
    upscaler_1: Text = Field("None", title="Upscaler 1", description="A name of /sdapi/v1/upscalers.")
    upscaler_2: Text = Field("None", title="Upscaler 2", description="A second one, laid over the first.")
    extras_upscaler_2_visibility: Share = Field(
        0.0,
        title="Upscaler 2 visibility",
        json_schema_extra=usual(0, 1, 0.001),
        description="0 to 1: how much of the second one is seen.",
    )
    upscale_first: Bool = Field(False, description="No effect: enlarging always comes first.")


class ExtrasSingle(Extras):
    """A picture to enlarge."""

    model_config = _example(image=_RED, upscaler_1="Lanczos", upscaling_resize=2)

    image: Text = Field("", title="Picture", description="The picture as base64.")


class ExtraImage(Wire):
    """One picture of several."""

    data: Text = Field(description="The picture as base64.")
    name: Text = Field(description="Its name, for the report.")


class ExtrasBatch(Extras):
    """Pictures to enlarge."""

    model_config = _example(imageList=[{"data": _RED, "name": "red.png"}], upscaler_1="Nearest", upscaling_resize=1.5)

    pictures: Annotated[list[ExtraImage], BeforeValidator(read_list)] = Field(
        alias="imageList", description="Pictures as base64, each with a name."
    )


class Simple(Wire):
    """The request of `/generate/`."""

    model_config = _example(prompt="a red apple", width=128, height=128, steps=12, seed=7)

    prompt: Text = Field("", description="What the picture shows.")
    negative_prompt: Text = Field("", description="What the picture does not show.")
    width: Int | None = Field(None, description="Pixels; the checkpoint's native size if left out.")
    height: Int | None = Field(None, description="Pixels; the checkpoint's native size if left out.")
    cfg_scale: Strength = Field(7.0, description="How strongly the prompt guides.")
    steps: Int = Field(20, description="Sampling steps.")
    number_of_images: Int = Field(1, description="How many pictures, 1 and up.")
    seed: Int = Field(-1, description="-1 draws one.")
    sampler_name: Text | None = Field(None, description="A name of /sdapi/v1/samplers.")


G = TypeVar("G", bound=Generation)


def request_of(kind: type[G], fields: Mapping[str, Any]) -> G:
    """A request out of fields that came by another way than its own route. Raises BadRequest for a wrong one."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadRequest(str(first["loc"][0]), first["input"], first["msg"]) from None
