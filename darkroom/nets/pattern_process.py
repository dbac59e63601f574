"""A process of its own that finds a regular expression in names: it may take for ever, and is ended from outside.

Run by its path. Knows the standard library alone. From standard input it reads `[expression, names]` as JSON; it writes
`{"found": names}` or `{"error": what is wrong with the expression}`.
"""

import json
import re
import resource
import sys

_MEMORY_BYTES = 1 << 30


def answer(expression: str, names: list[str]) -> dict[str, object]:
    """The names in which the expression is found, or why it is none."""
    try:
        search = re.compile(expression).search
    except (re.error, OverflowError, RecursionError) as error:
        return {"error": str(error)}
    return {"found": [name for name in names if search(name)]}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    json.dump(answer(*json.load(sys.stdin)), sys.stdout)
