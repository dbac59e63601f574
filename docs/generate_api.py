"""Writes docs/openapi.json from the routes, and the reference at the end of docs/api.md from that: `make api-doc`.

The rest of docs/api.md is written by hand.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from darkroom.api.app import create_app
from darkroom.engine.client import Engine
from darkroom.options.store import Options
from darkroom.settings import Settings

SNAPSHOT = Path(__file__).parent / "openapi.json"
PAGE = Path(__file__).parent / "api.md"
MARK = "<!-- From here on written by `make api-doc`. -->\n"
LONGEST = 60
"""Characters of a text in an example; pictures are cut off there."""

Json = Mapping[str, Any]


def document() -> dict[str, Any]:
    """The OpenAPI document of a server with every route."""
    return create_app(Settings(api_server_stop=True), cast("Engine", object()), Options()).openapi()


def snapshot() -> str:
    """The document as it is kept, so that a change of the API shows line by line."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def page(written: str) -> str:
    """The page with its reference made anew."""
    return written.split(MARK, maxsplit=1)[0].rstrip() + f"\n\n{MARK}\n{reference(document())}"


def reference(api: Json) -> str:
    """Every route with what it takes."""
    parts = [
        "\n".join(section(api, path, method, operation))
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    return "## Reference\n\nFields that may be left out show what they then are.\n\n" + "\n\n".join(parts) + "\n"


def section(api: Json, path: str, method: str, operation: Json) -> Iterator[str]:
    """One route."""
    yield f"### `{method.upper()} {path}`\n\n{one_line(operation['description'])}"
    queries = [parameter for parameter in operation.get("parameters", ()) if parameter["in"] in {"query", "path"}]
    if queries:
        yield "\n| parameter | type | default | what |\n|---|---|---|---|"
        yield from (row(entry["name"], entry["schema"], about(entry), entry["required"]) for entry in queries)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from fields(kind, resolved(api, content["schema"]))


def fields(kind: str, schema: Json) -> Iterator[str]:
    """The body of a request."""
    if properties := schema.get("properties"):
        yield f"\n| field of `{kind}` | type | default | what |\n|---|---|---|---|"
        required = schema.get("required", ())
        yield from (row(name, entry, about(entry), name in required) for name, entry in properties.items())
    for example in schema.get("examples", ()):
        yield f"\n```json\n{json.dumps(shortened(example), ensure_ascii=False)}\n```"


def row(name: str, schema: Json, what: str, required: bool) -> str:
    """One field or parameter."""
    default = "required" if required else f"`{json.dumps(schema.get('default'), ensure_ascii=False)}`"
    return f"| `{name}` | {kind_of(schema)} | {default} | {what} |"


def about(entry: Json) -> str:
    """What a field says about itself, safe in a table."""
    text = entry.get("description") or entry.get("schema", {}).get("description", "")
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")


def kind_of(schema: Json) -> str:
    """A type in a few words, with its choices and range."""
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind_of(choice) for choice in schema["anyOf"]))
    if "$ref" in schema:
        return "object"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    return " ".join([named(schema), *bounds])


def named(schema: Json) -> str:
    """The plain word for a JSON type."""
    words = {"string": "text", "boolean": "switch", "array": "list", "const": "text"}
    found: str = schema.get("type", "anything")
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return "file"
    inner = schema.get("items", {})
    return f"list of {kind_of(inner)}" if found == "array" and inner.get("type") else words.get(found, found)


def resolved(api: Json, schema: Json) -> Json:
    """The schema that a reference names."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Json = api["components"]["schemas"][name] if name else schema
    return found


def shortened(value: Any) -> Any:
    """An example whose pictures are cut off."""
    if isinstance(value, str) and len(value) > LONGEST:
        return value[:LONGEST] + "..."
    if isinstance(value, dict):
        return {name: shortened(entry) for name, entry in value.items()}
    return [shortened(entry) for entry in value] if isinstance(value, list) else value


def one_line(text: str) -> str:
    """A docstring as one paragraph."""
    return " ".join(text.split())


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(SNAPSHOT, PAGE)
