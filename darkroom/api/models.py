"""What clients send and get, field by field, with A1111's names, order and defaults. Decides nothing."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

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
)


class Wire(BaseModel):
    """A request's JSON object. Unknown keys are ignored; an empty array is an empty object."""

    model_config = ConfigDict(extra="ignore")

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

    prompt: Text | None = Field("", description="What the picture shows.")
    negative_prompt: Text | None = Field("", description="What it does not show.")
    styles: Texts | None = None
    seed: Int | None = Field(-1, description="-1 draws one.")
    subseed: Int | None = Field(-1, description="Variation seed; -1 draws one.")
    subseed_strength: Float | None = Field(0, description="0 to 1: how far towards the variation seed's noise.")
    seed_resize_from_h: Int | None = -1
    seed_resize_from_w: Int | None = -1
    sampler_name: Text | None = Field(None, description="A name of /sdapi/v1/samplers.")
    scheduler: Text | None = Field(None, description="A name or label of /sdapi/v1/schedulers.")
    batch_size: Int | None = Field(1, description="Pictures made together.")
    n_iter: Int | None = Field(1, description="Batches made one after another.")
    steps: Int | None = Field(50, description="Sampling steps.")
    cfg_scale: Float | None = Field(7.0, description="How strongly the prompt guides.")
    width: Int | None = Field(512, description="Pixels; the checkpoint's native size if left out.")
    height: Int | None = Field(512, description="Pixels; the checkpoint's native size if left out.")
    restore_faces: Bool | None = None
    tiling: Bool | None = None
    do_not_save_samples: Bool | None = False
    do_not_save_grid: Bool | None = False
    eta: Float | None = None
    denoising_strength: Float | None = None
    s_min_uncond: Float | None = None
    s_churn: Float | None = None
    s_tmax: Float | None = None
    s_tmin: Float | None = None
    s_noise: Float | None = None
    override_settings: Object | None = Field(None, description="Options for this request alone.")
    override_settings_restore_afterwards: Bool | None = True
    refiner_checkpoint: Text | None = None
    refiner_switch_at: Float | None = None
    disable_extra_networks: Bool | None = False
    firstpass_image: Text | None = None
    comments: Object | None = None

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

    enable_hr: Bool | None = False
    firstphase_width: Int | None = 0
    firstphase_height: Int | None = 0
    hr_scale: Float | None = 2.0
    hr_upscaler: Text | None = None
    hr_second_pass_steps: Int | None = 0
    hr_resize_x: Int | None = 0
    hr_resize_y: Int | None = 0
    hr_checkpoint_name: Text | None = None
    hr_sampler_name: Text | None = None
    hr_scheduler: Text | None = None
    hr_prompt: Text | None = ""
    hr_negative_prompt: Text | None = ""
    force_task_id: Text | None = None
    sampler_index: Text = Field("Euler", description="The old name of sampler_name, used where that is empty.")
    script_name: Text | None = None
    script_args: List = Field([])
    send_images: Bool = True
    save_images: Bool = False
    alwayson_scripts: Object = Field({})
    infotext: Text | None = None


class Img2Img(Generation):
    """The 57 fields of img2img."""

    denoising_strength: Float = Field(0.75, description="0 keeps the picture, 1 replaces it.")
    init_images: List | None = Field(None, description="Pictures as base64: one, or one per picture of a batch.")
    resize_mode: Int | None = Field(0, description="0 stretch, 1 crop, 2 fill, 3 stretch in latent space.")
    image_cfg_scale: Float | None = None
    mask: Text | None = Field(
        None, description="What is repainted, as base64: white, or opaque if it has transparency."
    )
    mask_blur_x: Int | None = 4
    mask_blur_y: Int | None = 4
    mask_blur: Int | None = None
    mask_round: Bool | None = True
    inpainting_fill: Int | None = Field(0, description="0 fill, 1 original, 2 latent noise, 3 latent nothing.")
    inpaint_full_res: Bool | None = Field(True, description="Work on the region around the mask only.")
    inpaint_full_res_padding: Int | None = 0
    inpainting_mask_invert: Int | None = 0
    initial_noise_multiplier: Float | None = None
    latent_mask: Text | None = None
    force_task_id: Text | None = None
    sampler_index: Text = Field("Euler", description="The old name of sampler_name, used where that is empty.")
    include_init_images: Bool = False
    script_name: Text | None = None
    script_args: List = Field([])
    send_images: Bool = True
    save_images: Bool = False
    alwayson_scripts: Object = Field({})
    infotext: Text | None = None


class Generated(BaseModel):
    """What txt2img and img2img answer."""

    images: list[str] = Field(description="Pictures as plain base64.")
    parameters: dict[str, Any] = Field(description="The request with all its fields.")
    info: str = Field(description="A JSON document: seeds, prompts, generation texts.")


class PngInfo(Wire):
    """A picture to read notes from."""

    image: Text


class Interrogate(Wire):
    """A picture to describe."""

    image: Text = ""
    model: Text = Field("clip", description="clip (a sentence) or deepdanbooru (tags).")


class Extras(Wire):
    """The fields that both extras requests share."""

    resize_mode: Annotated[Literal[0, 1], BeforeValidator(one_of(0, 1))] = Field(
        0, description="0 enlarges by upscaling_resize, 1 to upscaling_resize_w x upscaling_resize_h."
    )
    show_extras_results: Bool = Field(True, description="No effect.")
    gfpgan_visibility: Share = Field(0.0, description="0 to 1: how much of GFPGAN's result is seen.")
    codeformer_visibility: Share = Field(0.0, description="0 to 1: how much of CodeFormer's result is seen.")
    codeformer_weight: Share = Field(0.0, description="0 to 1; 0 changes faces most.")
    upscaling_resize: Annotated[Float, AfterValidator(above(0))] = Field(2.0, description="Factor.")
    upscaling_resize_w: Annotated[Int, AfterValidator(from_(1))] = Field(512, description="Pixels.")
    upscaling_resize_h: Annotated[Int, AfterValidator(from_(1))] = Field(512, description="Pixels.")
    upscaling_crop: Bool = Field(True, description="Cut off, or fill with black, what departs from the wanted size.")
    upscaler_1: Text = Field("None", description="A name of /sdapi/v1/upscalers.")
    upscaler_2: Text = Field("None", description="A second one, laid over the first.")
    extras_upscaler_2_visibility: Share = Field(0.0, description="0 to 1: how much of the second one is seen.")
    upscale_first: Bool = Field(False, description="No effect: enlarging always comes first.")


class ExtrasSingle(Extras):
    """A picture to enlarge."""

    image: Text = ""


class ExtraImage(Wire):
    """One picture of several."""

    data: Text
    name: Text


class ExtrasBatch(Extras):
    """Pictures to enlarge."""

    pictures: Annotated[list[ExtraImage], BeforeValidator(read_list)] = Field(
        alias="imageList", description="Pictures as base64, each with a name."
    )


class Simple(Wire):
    """The request of `/generate/`."""

    prompt: Text = ""
    negative_prompt: Text = ""
    width: Int | None = None
    height: Int | None = None
    cfg_scale: Float = 7.0
    steps: Int = 20
    number_of_images: Int = 1
    seed: Int = -1
    sampler_name: Text | None = None
