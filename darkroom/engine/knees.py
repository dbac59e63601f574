"""What batches were found to cost, kept on disk, so that a server knows it when it starts again.

A machine's costs mean nothing to another one, nor to another version of torch: the file says whose they are.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from darkroom.engine.costs import Kind, Table

log = logging.getLogger(__name__)


def read(path: Path, machine: str) -> dict[Kind, Table]:
    """The tables that were kept for this machine; none if there is no such file, or a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["machine"] != machine:
            return {}
        return {
            Kind(str(name), str(checkpoint), int(pixels)): {int(rows): float(row_s) for rows, row_s in table.items()}
            for name, checkpoint, pixels, table in content["costs"]
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.warning("%s cannot be used, costs are measured anew: %s", path.name, error)
        return {}


def write(path: Path, machine: str, tables: Mapping[Kind, Table]) -> None:
    """Keep the tables, in one step. Nothing depends on it: a full disk is logged and passed over."""
    costs = [[kind.name, kind.checkpoint, kind.pixels, table] for kind, table in tables.items()]
    beside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"machine": machine, "costs": costs}), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        log.info("%s is not kept: %s", path.name, error.strerror or error)
