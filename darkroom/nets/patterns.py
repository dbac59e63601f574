"""Regular expressions that somebody sent: found in names within a time, whatever they are. No torch."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from darkroom.errors import BadRequest

MAX_LENGTH = 500
TIMEOUT_S = 5.0

_CHILD = str(Path(__file__).with_name("pattern_process.py"))


def names_with(expression: str, names: Iterable[str], *, field: str, timeout_s: float = TIMEOUT_S) -> frozenset[str]:
    """The names in which a regular expression (Python's) is found; for the empty one none.

    Raises BadRequest, which names the `field`, for one that is none, too long, or takes too long.
    """
    if not expression:
        return frozenset()
    if len(expression) > MAX_LENGTH:
        raise BadRequest(field, expression, f"at most {MAX_LENGTH} characters")
    # Matching cannot be stopped within a process: some expressions take longer than anybody lives.
    command = [sys.executable, "-I", "-S", _CHILD]
    text = json.dumps([expression, list(names)])
    try:
        done = subprocess.run(  # noqa: S603  the command is ours, what was sent is its input
            command, input=text, capture_output=True, text=True, encoding="utf-8", timeout=timeout_s, check=True
        )
    except subprocess.TimeoutExpired:
        raise BadRequest(field, expression, f"an expression that is found within {timeout_s:g} s") from None
    except subprocess.CalledProcessError:
        raise BadRequest(field, expression, "an expression that is found with little memory") from None
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise BadRequest(field, expression, f"a regular expression: {answer['error']}")
    return frozenset(answer["found"])
