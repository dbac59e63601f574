"""Reads the tables of names out of the description of the original's API, which lies beside the repository."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DESCRIPTION = Path(__file__).parents[4] / "shared/spec/http-api.md"
KEPT = Path(__file__).with_name("contract.json")

Contract = dict[str, list[list[str]]]


def read_contract(text: str) -> Contract:
    """Routes as method and path; fields as name, type, default and whether null is taken; names as they are."""
    return {
        "routes": [
            [method, path] for method, path in re.findall(r"^\| (GET|POST) \| `(/[^`]+)` \|", text, re.MULTILINE)
        ],
        "txt2img": list(fields(between(text, "## 5. ", "### 5.1"))),
        "img2img": list(fields(between(text, "## 6. ", "### 6.1"))),
        "info": [[name] for name in info_keys(between(text, "### 7.3", "Not in `info`"))],
        "options": [[row[0], row[2]] for row in rows(between(text, "## Appendix A", "## Appendix B"), 5)],
        "flags": [[row[0]] for row in rows(between(text, "## Appendix B", "## Appendix C"), 4)],
    }


def between(text: str, first: str, last: str) -> str:
    """The part from one heading to another."""
    start = text.index(f"\n{first}")
    return text[start : text.index(f"\n{last}", start)]


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """The rows of tables whose first cell is a name, without their quotes."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == columns and re.fullmatch(r"`[\w.]+`", cells[0]):
            yield [cells[0].strip("`"), *cells[1:]]


def fields(text: str) -> Iterator[list[str]]:
    """The numbered rows of a request's fields."""
    for _, name, kind, default, null in re.findall(
        r"^\| (\d+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE
    ):
        yield [name, kind.strip(), default.strip().strip("*").strip("`"), null.strip().strip("*")[:3].strip()]


def info_keys(text: str) -> Iterator[str]:
    """The keys of `info`: a row may name several."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`(\w+)`", line.split("|")[1])


def kept() -> Contract:
    """The tables as they are kept in the repository."""
    found: Any = json.loads(KEPT.read_text(encoding="utf-8"))
    contract: Contract = found
    return contract
