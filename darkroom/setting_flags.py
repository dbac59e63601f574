"""Commands that take the settings as flags: one flag per field of Settings. Imports nothing heavy."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr, ValidationError

from darkroom import logs
from darkroom.settings import ENV_PREFIX, Settings

_SERVER_ONLY = frozenset(
    {
        "host",
        "port",
        "listen",
        "subpath",
        "tls_keyfile",
        "tls_certfile",
        "api_auth",
        "api_auth_file",
        "api_auth_hashed",
        "gradio_auth",
        "gradio_auth_path",
        "login_valid_s",
        "admins",
        "insecure_no_auth",
        "allowed_hosts",
        "strict",
        "cors_allow_origins",
        "cors_allow_origins_regex",
        "api_server_stop",
        "freeze_settings",
        "freeze_settings_in_sections",
        "freeze_specific_settings",
        "ui",
        "share",
        "extensions",
        "without_extensions",
        "max_queue",
        "max_body_bytes",
        "max_image_pixels",
        "open_metrics",
        "otlp_endpoint",
        "slow_reader_s",
        "webhook_private",
        "webhook_key",
        "webhook_tries",
        "webhook_wait_s",
    }
)
"""Settings that mean nothing to a command that serves nobody."""

_OTHER_FLAGS = {"ui": (" /--nowebui",)}
"""A1111's flags for what has another name here, as typer writes them."""

_SECTION = "Settings (also in the environment and in darkroom.toml)"


def takes_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per field of Settings; it is called with the settings, read once, as `settings`."""
    serving = function.__name__ == "serve"
    names = [name for name in Settings.model_fields if serving or name not in _SERVER_ONLY]

    def command(**arguments: Any) -> None:
        flags = {name: arguments.pop(name) for name in names}
        settings = _load(flags, arguments.pop("config"))
        logs.set_up(settings.log_level, settings.log_format)
        function(settings=settings, **arguments)

    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "settings"]
    command.__signature__ = inspect.Signature([*own, *map(_flag, names), _CONFIG])  # type: ignore[attr-defined]
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    return command


def _flag(name: str) -> inspect.Parameter:
    """The flag of one setting. Its default is "not given", so that environment and file have their say."""
    field = Settings.model_fields[name]
    default = "" if field.default in {None, ""} or isinstance(field.default, SecretStr) else field.default
    note = f"{field.description} [{ENV_PREFIX}{name.upper()}]" + (f" [default: {default}]" if default != "" else "")
    dashed = name.replace("_", "-")
    flag = f"--{dashed}/--no-{dashed}" if field.annotation is bool else f"--{dashed}"
    flags = [flag, *_OTHER_FLAGS.get(name, ())]
    kind = field.annotation if field.annotation in {bool, int, float} else str
    option = typer.Option(*flags, help=note, show_default=False, rich_help_panel=_SECTION)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="A TOML file of settings instead of darkroom.toml in the data folder or here.",
            exists=True,
            dir_okay=False,
            rich_help_panel=_SECTION,
        ),
    ],
)


def _load(flags: dict[str, Any], config: Path | None) -> Settings:
    """The settings. Raises BadParameter naming the setting and what it may be."""
    try:
        return Settings.load(flags, config)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors(include_url=False))
        raise typer.BadParameter("; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"settings file: {error}") from None
