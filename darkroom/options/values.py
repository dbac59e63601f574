"""The values of all options at one moment. Knows which of them steer something; not what they do.

What stands in `OptionValues` as a typed attribute is read somewhere; every other option of the table changes nothing.
"""

from collections.abc import Mapping
from inspect import get_annotations
from typing import Any, Literal, NoReturn

from darkroom.errors import BadRequest
from darkroom.options.kinds import Value
from darkroom.options.table import TABLE

FileFormat = Literal["png", "jpg", "jpeg", "webp", "avif", "gif"]


class OptionValues:
    """The options at one moment; they never change. The table has defaults, ranges and what each decides."""

    samples_save: bool
    samples_format: FileFormat
    samples_filename_pattern: str
    save_images_add_number: bool
    save_images_replace_action: Literal["Replace", "Add number suffix"]
    grid_save: bool
    grid_format: FileFormat
    grid_extended_filename: bool
    grid_only_if_multiple: bool
    grid_prevent_empty_spots: bool
    n_rows: int
    grid_text_active_color: str
    grid_text_inactive_color: str
    grid_background_color: str
    save_images_before_face_restoration: bool
    save_images_before_highres_fix: bool
    save_images_before_color_correction: bool
    save_mask: bool
    save_mask_composite: bool
    jpeg_quality: int
    webp_lossless: bool
    export_for_4chan: bool
    img_downscale_threshold: float
    target_side_length: int
    img_max_size_mp: int
    save_init_img: bool
    save_incomplete_images: bool
    outdir_txt2img_samples: str
    outdir_img2img_samples: str
    outdir_txt2img_grids: str
    outdir_img2img_grids: str
    outdir_init_images: str
    save_to_dirs: bool
    grid_save_to_dirs: bool
    directories_filename_pattern: str
    directories_max_prompt_words: int
    ESRGAN_tile: int
    ESRGAN_tile_overlap: int
    realesrgan_enabled_models: tuple[str, ...]
    dat_enabled_models: tuple[str, ...]
    DAT_tile: int
    DAT_tile_overlap: int
    upscaler_for_img2img: str | None
    face_restoration: bool
    face_restoration_model: Literal["CodeFormer", "GFPGAN"]
    code_former_weight: float
    face_restoration_unload: bool
    list_hidden_files: bool
    api_enable_requests: bool
    api_forbid_local_requests: bool
    api_useragent: str
    sd_model_checkpoint: str | None
    enable_quantization: bool
    emphasis: Literal["None", "Ignore", "Original", "No norm"]
    comma_padding_backtrack: int
    sdxl_clip_l_skip: bool
    CLIP_stop_at_last_layers: int
    randn_source: Literal["GPU", "CPU", "NV"]
    tiling: bool
    hires_fix_refiner_pass: Literal["first pass", "second pass", "both passes"]
    sdxl_crop_top: int
    sdxl_crop_left: int
    sdxl_refiner_low_aesthetic_score: float
    sdxl_refiner_high_aesthetic_score: float
    sd3_enable_t5: bool
    sd_vae: str
    sd_vae_overrides_per_model_preferences: bool
    auto_vae_precision_bfloat16: bool
    auto_vae_precision: bool
    sd_vae_decode_method: Literal["Full", "TAESD", "Approx NN", "Approx cheap"]
    inpainting_mask_weight: float
    initial_noise_multiplier: float
    img2img_extra_noise: float
    img2img_color_correction: bool
    img2img_fix_steps: bool
    img2img_background_color: str
    return_mask: bool
    return_mask_composite: bool
    overlay_inpaint: bool
    s_min_uncond: float
    s_min_uncond_all: bool
    token_merging_ratio: float
    token_merging_ratio_img2img: float
    token_merging_ratio_hr: float
    pad_cond_uncond: bool
    pad_cond_uncond_v0: bool
    fp8_storage: Literal["Disable", "Enable for SDXL", "Enable"]
    auto_backcompat: bool
    use_old_emphasis_implementation: bool
    use_old_karras_scheduler_sigmas: bool
    no_dpmpp_sde_batch_determinism: bool
    use_old_hires_fix_width_height: bool
    hires_fix_use_firstpass_conds: bool
    use_old_scheduling: bool
    use_downcasted_alpha_bar: bool
    refiner_switch_by_sample_steps: bool
    interrogate_keep_models_in_memory: bool
    interrogate_return_ranks: bool
    interrogate_clip_num_beams: int
    interrogate_clip_min_length: int
    interrogate_clip_max_length: int
    interrogate_clip_dict_limit: int
    interrogate_clip_skip_categories: tuple[str, ...]
    interrogate_deepbooru_score_threshold: float
    deepbooru_sort_alpha: bool
    deepbooru_use_spaces: bool
    deepbooru_escape: bool
    deepbooru_filter_tags: str
    extra_networks_default_multiplier: float
    textual_inversion_add_hashes_to_infotext: bool
    sd_hypernetwork: str
    keyedit_precision_attention: float
    keyedit_precision_extra: float
    keyedit_delimiters: str
    keyedit_move: bool
    disable_token_counters: bool
    include_styles_into_token_counters: bool
    return_grid: bool
    enable_pnginfo: bool
    save_txt: bool
    add_model_name_to_info: bool
    add_model_hash_to_info: bool
    add_vae_name_to_info: bool
    add_vae_hash_to_info: bool
    add_version_to_infotext: bool
    disable_weights_auto_swap: bool
    infotext_skip_pasting: tuple[str, ...]
    infotext_styles: Literal["Ignore", "Apply", "Discard", "Apply if any"]
    live_previews_enable: bool
    live_previews_image_format: Literal["png", "jpeg", "webp"]
    show_progress_grid: bool
    show_progress_every_n_steps: int
    show_progress_type: Literal["Full", "Approx NN", "Approx cheap", "TAESD"]
    live_preview_content: Literal["Combined", "Prompt", "Negative prompt"]
    eta_ddim: float
    eta_ancestral: float
    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float
    sigma_min: float
    sigma_max: float
    rho: float
    eta_noise_seed_delta: int
    always_discard_next_to_last_sigma: bool
    sgm_noise_multiplier: bool
    uni_pc_variant: Literal["bh1", "bh2", "vary_coeff"]
    uni_pc_skip_type: Literal["time_uniform", "time_quadratic", "logSNR"]
    uni_pc_order: int
    uni_pc_lower_order_final: bool
    sd_noise_schedule: Literal["Default", "Zero Terminal SNR"]
    skip_early_cond: float
    beta_dist_alpha: float
    beta_dist_beta: float
    postprocessing_disable_in_extras: tuple[str, ...]
    postprocessing_operation_order: tuple[str, ...]
    sd_lora: str
    lora_add_hashes_to_infotext: bool
    enable_prompt_comments: bool
    SCUNET_tile: int
    SCUNET_tile_overlap: int
    SWIN_tile: int
    SWIN_tile_overlap: int
    deepcache_interval: int

    def __init__(self, changed: Mapping[str, Value] | None = None) -> None:
        """A1111's defaults, but for `changed`, which has been read already."""
        vars(self).update({name: option.default for name, option in TABLE.items()})
        vars(self).update(changed or {})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name}: options never change, take merged()")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, OptionValues) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).items()))

    def __getitem__(self, name: str) -> Value:
        """The value of any option of the table, also of one that steers nothing."""
        value: Value = vars(self)[name]
        return value

    def merged(self, changes: Mapping[str, object], *, field: str = "") -> "OptionValues":
        """A copy with some values replaced. Raises BadRequest, naming `field` and the option, for a wrong value or an
        option that is not in the table.
        """
        read = {name: read_value(name, value, field=field) for name, value in changes.items()}
        return OptionValues({**vars(self), **read})

    def as_json(self) -> dict[str, Any]:
        """Every option in the table's order, as JSON has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


STEERING: frozenset[str] = frozenset(get_annotations(OptionValues))
"""The options that change something."""


def read_value(name: str, value: object, *, field: str = "") -> Value:
    """An option's value as it is kept, from what a client sent. Raises BadRequest."""
    option = TABLE.get(name)
    if option is None:
        raise BadRequest(field + name, value, "there is no such option")
    try:
        return option.read(value)
    except ValueError:
        raise BadRequest(field + name, value, option.allowed) from None


def has_no_effect(name: str, value: object, present: OptionValues) -> bool:
    """Whether nothing comes of setting an option to a value: there is no such option, or clients cannot change it and
    it is otherwise at `present`, or it steers nothing and is not to be what it is from the start.
    """
    option = TABLE.get(name)
    if option is None:
        return True
    if name in STEERING and not option.fixed:
        return False
    return not option.means(value, present[name] if option.fixed else option.default)
