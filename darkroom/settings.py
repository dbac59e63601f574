"""What the operator decides: frozen, and read once.

Knows names, defaults, ranges and files. Knows nothing of HTTP, checkpoints or what any value does. What clients may
change while the server runs are the options.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from darkroom.credentials import Credentials, parse
from darkroom.logs import LogFormat
from darkroom.options.freezing import Freezing, read_names, read_sections

UpscalerFamily = Literal["Darkroom", "ESRGAN", "RealESRGAN", "DAT", "HAT", "SwinIR", "ScuNET", "LDSR"]
FaceRestorer = Literal["CodeFormer", "GFPGAN"]

CONFIG_NAME = "darkroom.toml"
ENV_PREFIX = "DARKROOM_"


class Settings(BaseSettings):
    """Everything that is fixed for the life of the process: as a flag, as DARKROOM_<NAME>, or in a TOML file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 serves every interface.")
    port: int = Field(7860, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    listen: bool = Field(False, description="Bind every interface, unless host names another address than 127.0.0.1.")
    subpath: str = Field("", description="Path under which a reverse proxy shows this server.")
    tls_keyfile: Path | None = Field(None, description="Private key, PEM; with tls_certfile the server speaks HTTPS.")
    tls_certfile: Path | None = Field(None, description="Certificate chain, PEM.")
    data_dir: Path = Field(Path("data"), description="Folder for config.json and saved pictures.")
    models_dir: Path = Field(Path("models"), description="Folder of models, in A1111's layout.")
    styles_file: str = Field(
        "", description="Files of prompt styles, separated by commas, with wildcards; data_dir/styles.csv if empty."
    )
    ckpt: Path | None = Field(None, description="A checkpoint that is listed first, and in use after a start.")
    ckpt_dir: Path | None = Field(
        None, description="Another folder of checkpoints, listed before those of models_dir/Stable-diffusion."
    )
    lora_dir: Path | None = Field(None, description="Folder of adapters; models_dir/Lora if not given.")
    lyco_dir_backcompat: Path | None = Field(
        None, description="Second folder of adapters; models_dir/LyCORIS if not given."
    )
    vae_path: Path | None = Field(None, description="An autoencoder that is used with every checkpoint.")
    vae_dir: Path | None = Field(None, description="Another folder of autoencoders beside models_dir/VAE.")
    embeddings_dir: Path | None = Field(
        None, description="Folder of embeddings; if not given, models_dir/embeddings and embeddings beside models_dir."
    )
    hypernetwork_dir: Path | None = Field(
        None, description="Folder of hypernetworks; models_dir/hypernetworks if not given."
    )
    esrgan_models_path: Path | None = Field(None, description="Folder of upscalers; models_dir/ESRGAN if not given.")
    realesrgan_models_path: Path | None = Field(None, description="Another; models_dir/RealESRGAN if not given.")
    dat_models_path: Path | None = Field(None, description="Another; models_dir/DAT if not given.")
    swinir_models_path: Path | None = Field(None, description="Another; models_dir/SwinIR if not given.")
    scunet_models_path: Path | None = Field(None, description="Another; models_dir/ScuNET if not given.")
    gfpgan_models_path: Path | None = Field(None, description="Folder of GFPGAN; models_dir/GFPGAN if not given.")
    codeformer_models_path: Path | None = Field(
        None, description="Folder of CodeFormer; models_dir/Codeformer if not given."
    )
    no_hashing: bool = Field(False, description="Compute no hashes of models; pictures then do not tell them.")
    converted_gb: float = Field(
        50.0, gt=0, description="Room for safetensors copies of pickled checkpoints in data_dir, gigabytes."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Number format of the networks; A1111's autocast, full and half mean auto, fp32 and fp16."
    )
    vae_precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Number format of autoencoders; auto is that of the other networks."
    )
    no_half: bool = Field(False, description="Compute in fp32, whatever precision says.")
    no_half_vae: bool = Field(False, description="Compute autoencoders in fp32, whatever vae_precision says.")
    upcast_sampling: bool = Field(False, description="Accepted from A1111: sampling is always in fp32 here.")
    medvram: bool = Field(
        False,
        description="On a GPU, keep only the text encoder, the denoiser or the autoencoder in its memory at a time.",
    )
    medvram_sdxl: bool = Field(False, description="As medvram, for SDXL checkpoints alone.")
    lowvram: bool = Field(False, description="As medvram, and of the denoiser only one block at a time; slow.")
    exact: bool = Field(False, description="Same bytes for the same request, alone or in company; may be slower.")
    threads: int = Field(0, ge=0, description="CPU threads of the networks; 0 takes every core.")
    native_kernels: bool = Field(
        True,
        description="Compile Darkroom's own kernels (AMX; norms: AVX2) if there is a C compiler (cc).",
    )
    compile: bool = Field(
        False,
        description="Compile UNets and decoders in the background, for sizes often asked for; not with exact.",
    )
    disable_nan_check: bool = Field(False, description="Draw black pictures where a network's answer is no number.")
    api_auth: SecretStr = Field(SecretStr(""), description="Passwords of the API: user:password[,user2:password2].")
    api_auth_file: Path | None = Field(
        None, description="File of users and keys, written by `darkroom user` and `darkroom key`."
    )
    api_auth_hashed: SecretStr = Field(
        SecretStr(""), description="Lines of such a file, separated by newlines or commas: for the environment."
    )
    gradio_auth: SecretStr = Field(
        SecretStr(""), description="More users, as A1111's web UI takes them: user:password[,user2:password2]."
    )
    gradio_auth_path: Path | None = Field(None, description="File of such users, separated by commas or lines.")
    login_valid_s: float = Field(604_800.0, ge=60, description="How long a login in a browser counts, seconds.")
    admins: str = Field(
        "", description="Users and keys who see and stop everybody's work, beside those whose line in the file says so."
    )
    insecure_no_auth: bool = Field(False, description="Serve other machines without asking for a password.")
    allowed_hosts: str = Field(
        "", description="DNS names of this server, with wildcards, separated by commas; needed without passwords."
    )
    strict: bool = Field(False, description="Refuse with 422 what would be served with a warning.")
    api_server_stop: bool = Field(False, description="Serve the routes that end the process.")
    freeze_settings: bool = Field(
        False, description="Let nobody change an option over HTTP, not for one request either."
    )
    freeze_settings_in_sections: str = Field(
        "", description="Sections whose options nobody may change, by A1111's names, separated by commas."
    )
    freeze_specific_settings: str = Field("", description="Options that nobody may change, separated by commas.")
    ui: bool = Field(True, description="Serve the web UI under /ui/; without it (A1111's --nowebui) only the API.")
    extensions: bool = Field(True, description="Load the extensions that are installed as Python packages.")
    without_extensions: str = Field("", description="Names of extensions that are left out, separated by commas.")
    cors_allow_origins: str = Field("", description="Web origins that may use the API, separated by commas; * is all.")
    cors_allow_origins_regex: str = Field(
        "", description="Regular expression of further web origins that may use the API; must match the whole origin."
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field("info", description="What is logged.")
    log_format: LogFormat = Field("text", description="How: lines for people, or a JSON object on each line.")
    otlp_endpoint: str = Field(
        "", description="Where traces are sent: a collector that speaks OTLP over HTTP, such as http://127.0.0.1:4318."
    )
    open_metrics: bool = Field(False, description="Show /metrics without a password.")
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
        8.0, gt=0, description="Memory for loaded models, gigabytes; the least recently used goes."
    )
    max_jobs: int = Field(1000, ge=1, description="Most asynchronous jobs waiting; more are answered with 429.")
    jobs_at_once: int = Field(16, ge=1, description="Asynchronous jobs in work at once.")
    history: bool = Field(True, description="Keep every picture with its request in data_dir, for /jobs and /images.")
    history_days: float = Field(30.0, gt=0, description="Kept pictures older than this are removed.")
    history_gb: float = Field(
        10.0, gt=0, description="Above so many gigabytes of kept pictures the oldest are removed."
    )
    audit_days: float = Field(
        365.0, ge=0, description="How long it is kept who asked for what, where users log in; 0 keeps nothing of it."
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="Database of jobs, such as postgresql://...; the file history.db in data_dir if empty.",
    )
    pictures_url: str = Field(
        "", description="Where pictures are kept: s3://bucket/prefix; the folder pictures in data_dir if empty."
    )
    signing_key: SecretStr = Field(
        SecretStr(""), description="What addresses of pictures are signed with; made and kept in data_dir if empty."
    )
    link_valid_s: float = Field(86_400.0, gt=0, description="How long a signed address of a picture counts, seconds.")
    webhook_private: bool = Field(
        False, description="Let webhooks reach addresses that are not on the public network, such as this machine."
    )
    webhook_key: SecretStr = Field(
        SecretStr(""), description="What webhooks are signed with; made and kept in data_dir/webhook-key if empty."
    )
    webhook_tries: int = Field(8, ge=1, description="How often a webhook is called before it is given up.")
    webhook_wait_s: float = Field(
        5.0, gt=0, description="Seconds before the second call of a webhook; each further wait is four times as long."
    )
    unload_after_s: float = Field(0.0, ge=0, description="Free models that nobody used for so many seconds; 0 never.")
    max_queue: int = Field(256, ge=1, description="Most requests waiting; more are answered with 429.")
    share: bool = Field(
        False, description="Open a public link to this server through Gradio's tunnel, which asks for a login."
    )
    slow_reader_s: float = Field(
        60.0, ge=1, description="Seconds after which a client is let go that takes nothing of its answer."
    )
    max_body_bytes: int = Field(100_000_000, ge=1024, description="Largest request body, bytes.")
    max_image_pixels: int = Field(64_000_000, ge=4096, description="Largest picture that is taken in, pixels.")

    @field_validator(
        "api_auth",
        "gradio_auth",
        "admins",
        "cors_allow_origins",
        "allowed_hosts",
        "styles_file",
        "without_extensions",
        "freeze_settings_in_sections",
        "freeze_specific_settings",
        mode="before",
    )
    @classmethod
    def _join_list(cls, value: object) -> object:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

    @field_validator("precision", mode="before")
    @classmethod
    def _translate_precision(cls, value: object) -> object:
        return {"autocast": "auto", "full": "fp32", "half": "fp16"}.get(str(value), value)

    @field_validator("api_auth")
    @classmethod
    def _check_credentials(cls, value: SecretStr) -> SecretStr:
        parse_credentials(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_users_of_the_ui(self) -> Self:
        given = bool(self.gradio_auth.get_secret_value()) or self.gradio_auth_path is not None
        if given and not self._users_of_the_ui():
            raise ValueError("gradio_auth and gradio_auth_path name no user")
        return self

    @model_validator(mode="after")
    def _check_hashes(self) -> Self:
        if self.api_auth_hashed.get_secret_value() and self.hashed_credentials == Credentials():
            raise ValueError("api_auth_hashed names no user and no key")
        return self

    @field_validator("cors_allow_origins_regex")
    @classmethod
    def _check_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @field_validator("freeze_settings_in_sections")
    @classmethod
    def _check_sections(cls, value: str) -> str:
        read_sections(value)
        return value

    @field_validator("freeze_specific_settings")
    @classmethod
    def _check_options(cls, value: str) -> str:
        read_names(value)
        return value

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_keyfile is None) != (self.tls_certfile is None):
            raise ValueError("tls_keyfile and tls_certfile are given together or not at all")
        return self

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.share and self.tls_certfile is not None:
            raise ValueError("share and tls_certfile exclude each other: the link is HTTPS already, its tunnel is not")
        return self

    @property
    def bind_host(self) -> str:
        """The address to bind. A1111: a host that is named wins over `listen`."""
        return "0.0.0.0" if self.listen and self.host == "127.0.0.1" else self.host  # noqa: S104  the operator asked

    @property
    def root_path(self) -> str:
        """The path of the reverse proxy with a slash in front; empty without one."""
        inner = self.subpath.strip("/")
        return f"/{inner}" if inner else ""

    @property
    def is_guarded(self) -> bool:
        """Whether anybody is asked who they are."""
        return bool(self.credentials or self.api_auth_hashed.get_secret_value()) or self.api_auth_file is not None

    @property
    def traces_wanted(self) -> bool:
        """Whether traces are sent somewhere: `otlp_endpoint` says so, or OpenTelemetry's own variables."""
        told = os.environ.get
        if told("OTEL_SDK_DISABLED", "").lower() == "true" or told("OTEL_TRACES_EXPORTER") == "none":
            return False
        address = told("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or told("OTEL_EXPORTER_OTLP_ENDPOINT")
        return bool(self.otlp_endpoint or address)

    @property
    def host_names(self) -> list[str]:
        """The names of this server, in small letters, with wildcards."""
        return [name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip()]

    @property
    def admin_names(self) -> frozenset[str]:
        """The names of administrators."""
        return frozenset(name.strip() for name in self.admins.split(",") if name.strip())

    @property
    def credentials(self) -> dict[str, str]:
        """Password by user name; empty when no password is asked for."""
        return {**self._users_of_the_ui(), **parse_credentials(self.api_auth.get_secret_value())}

    def _users_of_the_ui(self) -> dict[str, str]:
        """Users in A1111's other way of writing them: blanks do not count, and a password may hold colons."""
        path = self.gradio_auth_path
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path else []
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text"
            raise ValueError(f"gradio_auth_path {path}: {reason}") from None
        entries = ",".join([self.gradio_auth.get_secret_value(), *lines]).split(",")
        found: dict[str, str] = {}
        for place, entry in enumerate((one.strip() for one in entries if one.strip()), start=1):
            user, _, password = entry.partition(":")
            if not user or not password:
                raise ValueError(f"entry {place} of gradio_auth must be user:password")
            found[user] = password
        return found

    @property
    def hashed_credentials(self) -> Credentials:
        """Users and keys that are given by their hashes."""
        return parse(self.api_auth_hashed.get_secret_value().replace(",", "\n"), "api_auth_hashed, entry")

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
    def extensions_left_out(self) -> frozenset[str]:
        """The names of extensions that are not loaded."""
        return frozenset(name.strip() for name in self.without_extensions.split(",") if name.strip())

    @property
    def freezing(self) -> Freezing:
        """Which options nobody may change."""
        return Freezing(
            everything=self.freeze_settings,
            sections=read_sections(self.freeze_settings_in_sections),
            names=read_names(self.freeze_specific_settings),
        )

    @property
    def checkpoint_dir(self) -> Path:
        """Where new checkpoints are put."""
        return self.checkpoint_folders[0]

    @property
    def checkpoint_folders(self) -> list[Path]:
        """Where checkpoints lie. A1111: of `ckpt_dir` only a certain folder in it counts if it is there."""
        usual = self.models_dir / "Stable-diffusion"
        if self.ckpt_dir is None or self.ckpt_dir.absolute() == usual.absolute():
            return [usual]
        pretrained = self.ckpt_dir / "experiments" / "pretrained_models"
        return [pretrained if pretrained.is_dir() else self.ckpt_dir, usual]

    @property
    def converted_dir(self) -> Path:
        """Where safetensors copies of pickled checkpoints are kept."""
        return self.data_dir / "converted"

    @property
    def compiled_dir(self) -> Path:
        """Where what torch compiles is kept."""
        return self.data_dir / "compiled"

    @property
    def adapter_folders(self) -> list[Path]:
        """Where adapters lie."""
        return [self.lora_dir or self.models_dir / "Lora", self.lyco_dir_backcompat or self.models_dir / "LyCORIS"]

    @property
    def vae_folders(self) -> list[Path]:
        """Where autoencoders lie that are not beside their checkpoints."""
        return [self.models_dir / "VAE", *([self.vae_dir] if self.vae_dir else [])]

    @property
    def part_folders(self) -> list[Path]:
        """Where text encoders and autoencoders lie that checkpoints lack, in A1111's, Forge's and ComfyUI's layout."""
        names = ("text_encoder", "text_encoders", "CLIP", "clip")
        return [*(self.models_dir / name for name in names), *self.vae_folders]

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
    def upscaler_folders(self) -> dict[UpscalerFamily, Path]:
        """Where networks lie that enlarge pictures."""
        return {
            "ESRGAN": self.esrgan_models_path or self.models_dir / "ESRGAN",
            "RealESRGAN": self.realesrgan_models_path or self.models_dir / "RealESRGAN",
            "DAT": self.dat_models_path or self.models_dir / "DAT",
            "HAT": self.models_dir / "HAT",
            "SwinIR": self.swinir_models_path or self.models_dir / "SwinIR",
            "ScuNET": self.scunet_models_path or self.models_dir / "ScuNET",
            "LDSR": self.models_dir / "LDSR",
        }

    @property
    def restorer_folders(self) -> dict[FaceRestorer, Path]:
        """Where networks lie that restore faces."""
        return {
            "CodeFormer": self.codeformer_models_path or self.models_dir / "Codeformer",
            "GFPGAN": self.gfpgan_models_path or self.models_dir / "GFPGAN",
        }

    @property
    def options_file(self) -> Path:
        """Where the options are kept."""
        return self.data_dir / "config.json"

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Self:
        """Flags before environment before file before defaults. Raises ValidationError, OSError, TOMLDecodeError."""
        given = {key: value for key, value in (flags or {}).items() if value is not None}
        environment = EnvSettingsSource(cls)()
        data_dir = Path(given.get("data_dir") or environment.get("data_dir") or cls.model_fields["data_dir"].default)
        path = config or _find_config(data_dir)
        return cls(**{**(_read_toml(path) if path else {}), **environment, **given})


def parse_credentials(text: str) -> dict[str, str]:
    """Read `user:password[,user2:password2]`. Raises ValueError naming the entry by its place, never by its text.

    An empty password is refused: it is what a variable leaves behind that was never set.
    """
    found: dict[str, str] = {}
    for place, entry in enumerate(text.split(",") if text else [], start=1):
        user, colon, password = entry.partition(":")
        if not colon or not user or ":" in password:
            raise ValueError(f"entry {place} must be user:password with exactly one colon")
        if not password:
            raise ValueError(f"entry {place} must be user:password with exactly one colon; its password is empty")
        found[user] = password
    return found


def _find_config(data_dir: Path) -> Path | None:
    return next((path for path in (data_dir / CONFIG_NAME, Path(CONFIG_NAME)) if path.is_file()), None)


def _read_toml(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)
