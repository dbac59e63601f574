"""Writes docs/settings.md from the settings themselves: `make settings-doc`."""

from pathlib import Path, PurePath
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from darkroom.settings import CONFIG_NAME, ENV_PREFIX, NO_EFFECT_YET, OptionValues, Settings

TARGET = Path(__file__).parent / "settings.md"

HEAD = f"""\
# Settings and options

This page is written by `make settings-doc` from the code; a test fails when it is out of date.

## Settings

Fixed for the life of the process. Each is a flag of the command line, an environment variable and a key of
`{CONFIG_NAME}`; a flag beats the environment, the environment beats the file, the file beats the default. The file is
looked for in the data folder, then where the server was started; `--config` names another. A switch has two flags:
`--exact` and `--no-exact`.

```toml
# {CONFIG_NAME}
host = "0.0.0.0"
api_auth = "me:secret"
max_steps = 60
```

| flag | environment | TOML key | default | allowed | what it decides |
|---|---|---|---|---|---|
"""

MIDDLE = """
## Options

What clients may change while the server runs: `POST /sdapi/v1/options` for everybody, from then on and after a restart
(they are kept in `config.json` in the data folder), or `override_settings` for one request. Names and defaults are
A1111's. Options marked † are accepted and kept because clients expect them, and have no effect yet.

| option | default | allowed |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    settings = "".join(setting_row(name, field) for name, field in Settings.model_fields.items())
    options = "".join(option_row(name, field) for name, field in OptionValues.model_fields.items())
    return HEAD + settings + MIDDLE + options


def setting_row(name: str, field: FieldInfo) -> str:
    """One setting in its three places."""
    flag = "--" + name.replace("_", "-")
    cells = (
        f"`{flag}`",
        f"`{ENV_PREFIX}{name.upper()}`",
        f"`{name}`",
        shown(field.default),
        allowed(field),
        field.description,
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def option_row(name: str, field: FieldInfo) -> str:
    """One option."""
    mark = " †" if name in NO_EFFECT_YET else ""
    return f"| `{name}`{mark} | {shown(field.default)} | {allowed(field)} |\n"


def shown(value: Any) -> str:
    """A default as one would write it in TOML or JSON."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{str(value) if isinstance(value, PurePath) else value}`"


def allowed(field: FieldInfo) -> str:
    """The type, or the choices, and the range of a field."""
    bounds = [bound for part in field.metadata for bound in bounds_of(part)]
    return " ".join([kind(field.annotation), *bounds]).strip()


def bounds_of(part: Any) -> list[str]:
    """What one constraint says."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return [f"{sign} {getattr(part, name)}" for name, sign in signs.items() if getattr(part, name, None) is not None]


def kind(annotation: Any) -> str:
    """A type in one word, or the choices."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if annotation is None or isinstance(annotation, type):
        names = {bool: "switch", int: "integer", float: "number", str: "text", SecretStr: "text", Path: "path"}
        return names.get(annotation or str, "")
    return ", ".join(filter(None, (kind(part) for part in get_args(annotation) if part is not type(None))))


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(TARGET)
