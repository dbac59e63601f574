"""`/sdapi/v1/cmd-flags`: this server's settings under the names of A1111's command line flags.

Flags without a counterpart here have A1111's default. No password is ever among the values.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter

from darkroom.api.context import Shared
from darkroom.settings import Settings

router = APIRouter(prefix="/sdapi/v1", tags=["server"])

KEEP_ALIVE_S = 30

_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "f": False,
        "update_all_extensions": False,
        "skip_python_version_check": False,
        "skip_torch_cuda_test": False,
        "reinstall_xformers": False,
        "reinstall_torch": False,
        "update_check": False,
        "test_server": False,
        "log_startup": False,
        "skip_prepare_environment": False,
        "skip_install": False,
        "dump_sysinfo": False,
        "loglevel": None,
        "do_not_download_clip": False,
        "data_dir": "",
        "models_dir": None,
        "config": "",
        "ckpt": "",
        "ckpt_dir": None,
        "vae_dir": None,
        "gfpgan_dir": "",
        "gfpgan_model": None,
        "no_half": False,
        "no_half_vae": False,
        "no_progressbar_hiding": False,
        "max_batch_count": 16,
        "embeddings_dir": "",
        "textual_inversion_templates_dir": "",
        "hypernetwork_dir": "",
        "localizations_dir": "",
        "allow_code": False,
        "medvram": False,
        "medvram_sdxl": False,
        "lowvram": False,
        "lowram": False,
        "always_batch_cond_uncond": False,
        "unload_gfpgan": False,
        "precision": "autocast",
        "upcast_sampling": False,
        "share": False,
        "ngrok": None,
        "ngrok_region": "",
        "ngrok_options": {},
        "enable_insecure_extension_access": False,
        "codeformer_models_path": "",
        "gfpgan_models_path": "",
        "esrgan_models_path": "",
        "bsrgan_models_path": "",
        "realesrgan_models_path": "",
        "dat_models_path": "",
        "clip_models_path": None,
        "xformers": False,
        "force_enable_xformers": False,
        "xformers_flash_attention": False,
        "deepdanbooru": False,
        "opt_split_attention": False,
        "opt_sub_quad_attention": False,
        "sub_quad_q_chunk_size": 1024,
        "sub_quad_kv_chunk_size": None,
        "sub_quad_chunk_threshold": None,
        "opt_split_attention_invokeai": False,
        "opt_split_attention_v1": False,
        "opt_sdp_attention": False,
        "opt_sdp_no_mem_attention": False,
        "disable_opt_split_attention": False,
        "disable_nan_check": False,
        "use_cpu": [],
        "use_ipex": False,
        "disable_model_loading_ram_optimization": False,
        "listen": False,
        "port": None,
        "show_negative_prompt": False,
        "ui_config_file": "",
        "hide_ui_dir_config": False,
        "freeze_settings": False,
        "freeze_settings_in_sections": None,
        "freeze_specific_settings": None,
        "ui_settings_file": "",
        "gradio_debug": False,
        "gradio_auth": None,
        "gradio_auth_path": None,
        "gradio_img2img_tool": None,
        "gradio_inpaint_tool": None,
        "gradio_allowed_path": [],
        "opt_channelslast": False,
        "styles_file": [],
        "autolaunch": False,
        "theme": None,
        "use_textbox_seed": False,
        "disable_console_progressbars": False,
        "enable_console_prompts": False,
        "vae_path": None,
        "disable_safe_unpickle": False,
        "api": True,
        "api_auth": None,
        "api_log": False,
        "nowebui": True,
        "ui_debug_mode": False,
        "device_id": None,
        "administrator": False,
        "cors_allow_origins": None,
        "cors_allow_origins_regex": None,
        "tls_keyfile": None,
        "tls_certfile": None,
        "disable_tls_verify": None,
        "server_name": None,
        "gradio_queue": True,
        "no_gradio_queue": False,
        "skip_version_check": False,
        "no_hashing": False,
        "no_download_sd_model": True,
        "subpath": None,
        "add_stop_route": False,
        "api_server_stop": False,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "disable_all_extensions": False,
        "disable_extra_extensions": False,
        "skip_load_model_at_start": False,
        "unix_filenames_sanitization": False,
        "filenames_max_length": 128,
        "no_prompt_history": True,
        "ldsr_models_path": "",
        "lora_dir": "",
        "lyco_dir_backcompat": "",
        "scunet_models_path": "",
        "swinir_models_path": "",
    }
)

_FOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "vae_dir": "VAE",
        "gfpgan_dir": "GFPGAN",
        "embeddings_dir": "embeddings",
        "hypernetwork_dir": "hypernetworks",
        "codeformer_models_path": "Codeformer",
        "gfpgan_models_path": "GFPGAN",
        "esrgan_models_path": "ESRGAN",
        "bsrgan_models_path": "BSRGAN",
        "realesrgan_models_path": "RealESRGAN",
        "dat_models_path": "DAT",
        "ldsr_models_path": "LDSR",
        "lora_dir": "Lora",
        "lyco_dir_backcompat": "LyCORIS",
        "scunet_models_path": "ScuNET",
        "swinir_models_path": "SwinIR",
    }
)
"""Folders of kinds of models, each inside the models folder."""

_EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  compared with, never bound


@router.get("/cmd-flags", operation_id="get_cmd_flags_sdapi_v1_cmd_flags_get")
def get_cmd_flags(context: Shared) -> dict[str, Any]:
    """What the server was started with. A1111: a flag whose default is nothing has a text as its value."""
    return flags(context.settings)


def flags(settings: Settings) -> dict[str, object]:
    """Every flag with its value."""
    return {**_DEFAULTS, **_folders(settings), **_network(settings), **_computing(settings)}


def _folders(settings: Settings) -> dict[str, object]:
    found: dict[str, object] = {flag: _shown(settings.models_dir / name) for flag, name in _FOLDERS.items()}
    data = settings.data_dir
    moved = {
        "lora_dir": settings.lora_dir,
        "lyco_dir_backcompat": settings.lyco_dir_backcompat,
        "vae_dir": settings.vae_dir,
        "vae_path": settings.vae_path,
        "embeddings_dir": settings.embeddings_dir,
        "hypernetwork_dir": settings.hypernetwork_dir,
        "ckpt": settings.ckpt,
        "esrgan_models_path": settings.esrgan_models_path,
        "realesrgan_models_path": settings.realesrgan_models_path,
        "dat_models_path": settings.dat_models_path,
        "swinir_models_path": settings.swinir_models_path,
        "scunet_models_path": settings.scunet_models_path,
        "gfpgan_models_path": settings.gfpgan_models_path,
        "codeformer_models_path": settings.codeformer_models_path,
    }
    return (
        found
        | {flag: _shown(path) for flag, path in moved.items() if path}
        | {
            "data_dir": _shown(data),
            "models_dir": _shown(settings.models_dir),
            "ckpt_dir": _shown(settings.checkpoint_dir),
            "no_hashing": settings.no_hashing,
            "ui_settings_file": _shown(settings.options_file),
            "styles_file": [_shown(data / "styles.csv")],
        }
    )


def _network(settings: Settings) -> dict[str, object]:
    listens = settings.bind_host in _EVERY_ADDRESS
    return {
        "listen": listens,
        "server_name": None if listens else settings.host,
        "port": str(settings.port),
        "subpath": settings.subpath.strip("/") or None,
        "cors_allow_origins": settings.cors_allow_origins or None,
        "cors_allow_origins_regex": settings.cors_allow_origins_regex or None,
        "tls_keyfile": _shown(settings.tls_keyfile) if settings.tls_keyfile else None,
        "tls_certfile": _shown(settings.tls_certfile) if settings.tls_certfile else None,
        "api_server_stop": settings.api_server_stop,
        "freeze_settings": settings.freeze_settings,
        "freeze_settings_in_sections": settings.freeze_settings_in_sections or None,
        "freeze_specific_settings": settings.freeze_specific_settings or None,
        "disable_all_extensions": not settings.extensions,
        "nowebui": not settings.ui,
        "loglevel": settings.log_level.upper(),
    }


def _computing(settings: Settings) -> dict[str, object]:
    full = settings.no_half or settings.precision == "fp32"
    return {
        "no_half": full,
        "no_half_vae": settings.no_half_vae or settings.vae_precision == "fp32",
        "upcast_sampling": settings.upcast_sampling,
        "medvram": settings.medvram,
        "medvram_sdxl": settings.medvram_sdxl,
        "lowvram": settings.lowvram,
        "precision": "full" if full else "half" if settings.precision == "fp16" else "autocast",
        "use_cpu": ["all"] if settings.device == "cpu" else [],
    }


def _shown(path: Path) -> str:
    return str(path.absolute())
