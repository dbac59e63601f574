"""What the operator decides: `Settings`, frozen and read once, and `Options`, which clients may change while serving.

Knows names, defaults, ranges and files. Knows nothing of HTTP, checkpoints or what any value does.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from darkroom.coerce import Bool, Float, Int, Text, Texts
from darkroom.errors import BadRequest

CONFIG_NAME = "darkroom.toml"
ENV_PREFIX = "DARKROOM_"


class Settings(BaseSettings):
    """Everything that is fixed for the life of the process: as a flag, as DARKROOM_<NAME>, or in a TOML file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 serves every interface.")
    port: int = Field(7860, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    root_path: str = Field("", description="Path under which a reverse proxy shows this server.")
    data_dir: Path = Field(Path("data"), description="Folder for config.json and saved pictures.")
    models_dir: Path = Field(Path("models"), description="Folder of models, in A1111's layout.")
    styles_file: str = Field(
        "", description="Files of prompt styles, separated by commas, with wildcards; data_dir/styles.csv if empty."
    )
    ckpt_dir: Path | None = Field(None, description="Folder of checkpoints; models_dir/Stable-diffusion if not given.")
    lora_dir: Path | None = Field(None, description="Folder of adapters; models_dir/Lora and LyCORIS if not given.")
    vae_dir: Path | None = Field(None, description="Another folder of autoencoders beside models_dir/VAE.")
    embeddings_dir: Path | None = Field(
        None, description="Folder of embeddings; if not given, models_dir/embeddings and embeddings beside models_dir."
    )
    hypernetwork_dir: Path | None = Field(
        None, description="Folder of hypernetworks; models_dir/hypernetworks if not given."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="Number format of the networks.")
    exact: bool = Field(False, description="Same bytes for the same request, alone or in company; slower.")
    threads: int = Field(0, ge=0, description="CPU threads of the networks; 0 takes every core.")
    disable_nan_check: bool = Field(False, description="Draw black pictures where a network's answer is no number.")
    api_auth: SecretStr = Field(SecretStr(""), description="Passwords of the API: user:password[,user2:password2].")
    api_server_stop: bool = Field(False, description="Serve the routes that end the process.")
    cors_allow_origins: str = Field("", description="Web origins that may use the API, separated by commas; * is all.")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field("info", description="What is logged.")
    max_width: int = Field(2048, ge=64, description="Widest picture, pixels.")
    max_height: int = Field(2048, ge=64, description="Highest picture, pixels.")
    max_pixels: int = Field(4_194_304, ge=4096, description="Largest area of a picture, pixels.")
    max_prompt_chars: int = Field(20_000, ge=1, description="Longest prompt, characters.")
    max_steps: int = Field(150, ge=1, description="Most sampling steps of a request.")
    max_batch_size: int = Field(8, ge=1, description="Largest batch_size of a request.")
    max_images: int = Field(64, ge=1, description="Most pictures of a request: batch_size * n_iter.")
    max_lanes: int = Field(32, ge=1, description="Pictures in work at once; further requests wait.")
    max_rows: int = Field(
        64, ge=1, description="Most network inputs of one batch; the engine finds the useful number itself."
    )
    model_memory_gb: float = Field(
        8.0, gt=0, description="Memory for loaded checkpoints, gigabytes; the least used goes."
    )
    max_queue: int = Field(256, ge=1, description="Most requests waiting; more are answered with 503.")
    max_body_bytes: int = Field(100_000_000, ge=1024, description="Largest request body, bytes.")
    max_image_pixels: int = Field(64_000_000, ge=4096, description="Largest picture that is taken in, pixels.")

    @field_validator("api_auth", "cors_allow_origins", "styles_file", mode="before")
    @classmethod
    def _join_list(cls, value: object) -> object:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

    @field_validator("api_auth")
    @classmethod
    def _check_credentials(cls, value: SecretStr) -> SecretStr:
        parse_credentials(value.get_secret_value())
        return value

    @property
    def credentials(self) -> dict[str, str]:
        """Password by user name; empty when no password is asked for."""
        return parse_credentials(self.api_auth.get_secret_value())

    @property
    def origins(self) -> list[str]:
        """The allowed web origins."""
        return [origin.strip() for origin in self.cors_allow_origins.split(",") if origin.strip()]

    @property
    def style_files(self) -> list[Path]:
        """The files of prompt styles; a name may hold wildcards."""
        named = [Path(name.strip()) for name in self.styles_file.split(",") if name.strip()]
        return named or [self.data_dir / "styles.csv"]

    @property
    def checkpoint_dir(self) -> Path:
        """Where checkpoints lie."""
        return self.ckpt_dir or self.models_dir / "Stable-diffusion"

    @property
    def adapter_folders(self) -> list[Path]:
        """Where adapters lie."""
        return [self.lora_dir or self.models_dir / "Lora", self.models_dir / "LyCORIS"]

    @property
    def vae_folders(self) -> list[Path]:
        """Where autoencoders lie that are not beside their checkpoints."""
        return [self.models_dir / "VAE", *([self.vae_dir] if self.vae_dir else [])]

    @property
    def embedding_folders(self) -> list[Path]:
        """Where textual-inversion embeddings lie. A1111: its folder of models stands beside that of embeddings."""
        if self.embeddings_dir:
            return [self.embeddings_dir]
        return [self.models_dir / "embeddings", self.models_dir.absolute().parent / "embeddings"]

    @property
    def hypernetwork_folders(self) -> list[Path]:
        """Where hypernetworks lie."""
        return [self.hypernetwork_dir or self.models_dir / "hypernetworks"]

    @property
    def options_file(self) -> Path:
        """Where the options are kept."""
        return self.data_dir / "config.json"

    @property
    def output_dir(self) -> Path:
        """Where pictures are saved."""
        return self.data_dir / "outputs"

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Self:
        """Flags before environment before file before defaults. Raises ValidationError, OSError, TOMLDecodeError."""
        given = {key: value for key, value in (flags or {}).items() if value is not None}
        environment = EnvSettingsSource(cls)()
        data_dir = Path(given.get("data_dir") or environment.get("data_dir") or cls.model_fields["data_dir"].default)
        path = config or _find_config(data_dir)
        return cls(**{**(_read_toml(path) if path else {}), **environment, **given})


def parse_credentials(text: str) -> dict[str, str]:
    """Read `user:password[,user2:password2]`. Raises ValueError naming the entry by its place, never by its text."""
    found: dict[str, str] = {}
    for place, entry in enumerate(text.split(",") if text else [], start=1):
        user, colon, password = entry.partition(":")
        if not colon or not user or ":" in password:
            raise ValueError(f"entry {place} must be user:password with exactly one colon")
        found[user] = password
    return found


def _find_config(data_dir: Path) -> Path | None:
    return next((path for path in (data_dir / CONFIG_NAME, Path(CONFIG_NAME)) if path.is_file()), None)


def _read_toml(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


FileFormat = Annotated[Literal["png", "jpg", "jpeg", "webp", "avif", "gif"], BeforeValidator(_lower)]


class OptionValues(BaseModel):
    """The options at one moment. Names, defaults and order are A1111's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples_save: Bool = True
    samples_format: FileFormat = "png"
    grid_save: Bool = True
    grid_format: FileFormat = "png"
    grid_only_if_multiple: Bool = True
    grid_prevent_empty_spots: Bool = False
    n_rows: Int = Field(-1, ge=-1, le=16)
    grid_background_color: Text = Field("#ffffff", pattern=r"^#[0-9a-fA-F]{6}$")
    save_images_before_color_correction: Bool = False
    save_mask: Bool = False
    save_mask_composite: Bool = False
    jpeg_quality: Int = Field(80, ge=1, le=100)
    webp_lossless: Bool = False
    save_init_img: Bool = False
    save_incomplete_images: Bool = False
    upscaler_for_img2img: Text | None = None
    face_restoration: Bool = False
    face_restoration_model: Text = "CodeFormer"
    sd_model_checkpoint: Text | None = None
    sd_checkpoint_hash: Text = ""
    sd_unet: Text = "Automatic"
    enable_quantization: Bool = False
    emphasis: Literal["None", "Ignore", "Original", "No norm"] = "Original"
    comma_padding_backtrack: Int = Field(20, ge=0, le=74)
    CLIP_stop_at_last_layers: Int = Field(1, ge=1, le=12)
    enable_prompt_comments: Bool = True
    randn_source: Literal["GPU", "CPU", "NV"] = "GPU"
    upcast_attn: Bool = False
    tiling: Bool = False
    hires_fix_refiner_pass: Literal["first pass", "second pass", "both passes"] = "second pass"
    sd_vae: Text = "Automatic"
    sd_vae_overrides_per_model_preferences: Bool = True
    auto_vae_precision_bfloat16: Bool = False
    auto_vae_precision: Bool = True
    inpainting_mask_weight: Float = Field(1.0, ge=0, le=1)
    initial_noise_multiplier: Float = Field(1.0, ge=0, le=10)
    img2img_extra_noise: Float = Field(0.0, ge=0, le=10)
    img2img_color_correction: Bool = False
    img2img_fix_steps: Bool = False
    img2img_background_color: Text = Field("#ffffff", pattern=r"^#[0-9a-fA-F]{6}$")
    return_mask: Bool = False
    return_mask_composite: Bool = False
    overlay_inpaint: Bool = True
    s_min_uncond: Float = Field(0.0, ge=0, le=15)
    s_min_uncond_all: Bool = False
    pad_cond_uncond: Bool = False
    pad_cond_uncond_v0: Bool = False
    token_merging_ratio: Float = Field(0.0, ge=0, le=0.9)
    token_merging_ratio_img2img: Float = Field(0.0, ge=0, le=0.9)
    token_merging_ratio_hr: Float = Field(0.0, ge=0, le=0.9)
    extra_networks_default_multiplier: Float = Field(1.0, ge=0, le=2)
    textual_inversion_add_hashes_to_infotext: Bool = True
    sd_hypernetwork: Text = "None"
    return_grid: Bool = True
    enable_pnginfo: Bool = True
    add_model_name_to_info: Bool = True
    add_model_hash_to_info: Bool = True
    add_vae_name_to_info: Bool = True
    add_vae_hash_to_info: Bool = True
    add_version_to_infotext: Bool = True
    save_txt: Bool = False
    disable_weights_auto_swap: Bool = True
    infotext_skip_pasting: Texts = Field([])
    infotext_styles: Literal["Ignore", "Apply", "Discard", "Apply if any"] = "Apply if any"
    auto_backcompat: Bool = True
    use_old_emphasis_implementation: Bool = False
    use_old_karras_scheduler_sigmas: Bool = False
    no_dpmpp_sde_batch_determinism: Bool = False
    hires_fix_use_firstpass_conds: Bool = False
    use_old_scheduling: Bool = False
    use_downcasted_alpha_bar: Bool = False
    refiner_switch_by_sample_steps: Bool = False
    use_old_hires_fix_width_height: Bool = False
    live_previews_enable: Bool = True
    live_previews_image_format: Literal["png", "jpeg", "webp"] = "png"
    show_progress_grid: Bool = True
    show_progress_every_n_steps: Int = Field(10, ge=-1, le=32)
    show_progress_type: Literal["Full", "Approx NN", "Approx cheap", "TAESD"] = "Approx NN"
    live_preview_content: Literal["Combined", "Prompt", "Negative prompt"] = "Prompt"
    eta_ddim: Float = Field(0.0, ge=0, le=10)
    eta_ancestral: Float = Field(1.0, ge=0, le=10)
    ddim_discretize: Literal["uniform", "quad"] = "uniform"
    s_churn: Float = Field(0.0, ge=0, le=1000)
    s_tmin: Float = Field(0.0, ge=0, le=1000)
    s_tmax: Float = Field(0.0, ge=0, le=1_000_000)
    s_noise: Float = Field(1.0, ge=0, le=10)
    sigma_min: Float = Field(0.0, ge=0, le=100_000)
    sigma_max: Float = Field(0.0, ge=0, le=100_000)
    rho: Float = Field(0.0, ge=0, le=1000)
    eta_noise_seed_delta: Int = 0
    always_discard_next_to_last_sigma: Bool = False
    sgm_noise_multiplier: Bool = False
    uni_pc_variant: Literal["bh1", "bh2", "vary_coeff"] = "bh1"
    uni_pc_skip_type: Literal["time_uniform", "time_quadratic", "logSNR"] = "time_uniform"
    uni_pc_order: Int = Field(3, ge=1, le=50)
    uni_pc_lower_order_final: Bool = True
    sd_noise_schedule: Literal["Default", "Zero Terminal SNR"] = "Default"
    skip_early_cond: Float = Field(0.0, ge=0, le=1)
    beta_dist_alpha: Float = Field(0.6, ge=0.01, le=100)
    beta_dist_beta: Float = Field(0.6, ge=0.01, le=100)
    sd_lora: Text = "None"
    lora_add_hashes_to_infotext: Bool = True

    @model_validator(mode="after")
    def _check_seed_delta(self) -> Self:
        if abs(self.eta_noise_seed_delta) >= 2**32:
            raise ValueError("eta_noise_seed_delta must lie within 32 bits")
        return self

    def merged(self, changes: Mapping[str, Any], *, field: str = "") -> "OptionValues":
        """A copy with some values replaced. Raises BadRequest, naming `field` and the option, for a wrong value."""
        try:
            return OptionValues.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "options"
            raise BadRequest(field + name, changes.get(name, first["input"]), first["msg"]) from None


NO_EFFECT_YET = frozenset(
    {
        "face_restoration", "face_restoration_model", "sd_unet",
        "ddim_discretize",
    }
)  # fmt: skip
"""Options that clients expect to exist and that change nothing so far."""


class Options:
    """The one place where options change. Jobs take snapshots; every change is on disk before it is acknowledged."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = Lock()
        self._values = _read_options(file) if file else OptionValues()

    def snapshot(self) -> OptionValues:
        """The options now; the value never changes afterwards."""
        return self._values

    def update(self, changes: Mapping[str, Any]) -> None:
        """Take all changes or none, and write them to disk. Raises BadRequest, OSError."""
        with self._lock:
            values = self._values.merged(changes)
            if self._file:
                _write_options(self._file, values)
            self._values = values


def _read_options(file: Path) -> OptionValues:
    """What the file says, key by key: one bad or unknown entry must not cost the others."""
    values = OptionValues()
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return values
    for key, value in stored.items() if isinstance(stored, dict) else ():
        if key in OptionValues.model_fields:
            try:
                values = values.merged({key: value})
            except BadRequest:
                continue
    return values


def _write_options(file: Path, values: OptionValues) -> None:
    """Replace the file in one step, so that a crash leaves the old or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, prefix=".config-", delete=False) as draft:
        json.dump(values.model_dump(), draft, indent=4, ensure_ascii=False)
        draft.flush()
        os.fsync(draft.fileno())
    Path(draft.name).replace(file)
