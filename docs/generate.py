"""Writes docs/settings.md from the settings themselves: `make settings-doc`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from darkroom.options.kinds import Option
from darkroom.options.table import SECTIONS
from darkroom.options.values import STEERING
from darkroom.settings import CONFIG_NAME, ENV_PREFIX, Settings

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
(they are kept in `config.json` in the data folder), or `override_settings` for one request. Every job keeps the options
that it was admitted with. Names, defaults and order are A1111's; values are checked, where A1111 keeps whatever it is
sent. A choice may be written in any letter case.

† Accepted, kept and given back because clients expect it, and without effect here; setting it to anything else than its
default is answered with its name in `X-Darkroom-Ignored`.<br>
‡ Not to be changed by clients. The `api_` options are changed in `config.json`, before the start.
"""

OPTIONS_HEAD = """
### {title}

| option | default | allowed | what it decides |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    settings = "".join(setting_row(name, field) for name, field in Settings.model_fields.items())
    return HEAD + settings + MIDDLE + "".join(section(title, options) for title, options in SECTIONS.items())


def section(title: str, options: Mapping[str, Option]) -> str:
    """One section of the options."""
    return OPTIONS_HEAD.format(title=title) + "".join(option_row(name, option) for name, option in options.items())


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


def option_row(name: str, option: Option) -> str:
    """One option."""
    mark = " ‡" if option.fixed else "" if name in STEERING else " †"
    return f"| `{name}`{mark} | {shown(option.default)} | {option.allowed} | {option.about} |\n"


def shown(value: Any) -> str:
    """A default as one would write it in TOML or JSON."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) or "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    written = str(value)
    return f"`` {written} ``" if "`" in written else f"`{written}`"


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
