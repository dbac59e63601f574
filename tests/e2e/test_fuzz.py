"""Requests made up from our own OpenAPI document never break the server: no 5xx, no hang, no growing memory.

Each run sends the same requests, so that a failure can be seen again. DARKROOM_FUZZ_S sends others for so many seconds;
`make fuzz` takes ten minutes.
"""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.result import Ok

from tests.e2e.serving import Server, serving

BUDGET_S = float(os.environ.get("DARKROOM_FUZZ_S", "0"))
ROUNDS = 5
PATIENCE_S = 30.0
GROWTH_BYTES = 400_000_000
EXAMPLES = 4
"""Requests per route, kind and round."""

FLAGS = (
    "--max-width", "192", "--max-height", "192", "--max-pixels", "36864", "--max-steps", "4", "--max-batch-size", "2",
    "--max-images", "2", "--max-image-pixels", "1000000", "--max-body-bytes", "2000000", "--log-level", "warning",
)  # fmt: skip
SMALL: dict[str, Any] = {
    "width": 64, "height": 64, "steps": 2, "batch_size": 1, "n_iter": 1, "firstphase_width": 0, "firstphase_height": 0,
    "hr_resize_x": 0, "hr_resize_y": 0, "hr_scale": 1.5, "hr_second_pass_steps": 1, "script_name": None,
    "refiner_checkpoint": None, "hr_checkpoint_name": None, "hr_upscaler": None, "infotext": None,
    "alwayson_scripts": {}, "override_settings": None, "styles": None, "seed": 1,
}  # fmt: skip
"""What made-up numbers almost never are: something that can be drawn."""

SHOWN = 100
Made = Case[Any]
Send = Callable[[Made], None]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, *FLAGS) as server:
        yield server


def resident_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) * 1024


def ask(case: Made, server: Server, session: requests.Session, answers: Counter[int]) -> None:
    """Send one request; what it is answered with must be meant."""
    try:
        answer = case.call(base_url=server.url, session=session, timeout=PATIENCE_S)
    except requests.Timeout:
        pytest.fail(f"no answer within {PATIENCE_S} s: {case.as_curl_command()[:2000]}")
    answers[answer.status_code] += 1
    not_here = answer.status_code == 501 and answer.json()["code"] == "not_installed"
    assert answer.status_code < 500 or not_here, f"{answer.text[:300]}\n{case.as_curl_command()[:2000]}"


def drawable(case: Made, kept: set[str]) -> None:
    """Give a request for pictures what a small one needs, but for the fields that are kept."""
    if isinstance(case.body, dict) and case.path.endswith(("txt2img", "img2img")):
        case.body |= {name: value for name, value in SMALL.items() if name not in kept}


def attack(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, turn: int, send: Send) -> None:
    """Send some requests of one kind to one route. A route that takes nothing cannot be asked wrongly."""

    @seed(turn)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=mode),
        small=st.booleans(),
        kept=st.sets(st.sampled_from(sorted(SMALL)), max_size=2),
    )
    def once(case: Made, small: bool, kept: set[str]) -> None:
        if small:
            drawable(case, kept)
        send(case)

    with suppress(Unsatisfiable):
        once()


def rounds(operations: Sequence[APIOperation[Any, Any, Any, Any]], send: Send) -> Iterator[int]:
    """Attack every route, once or again and again until the time is over."""
    deadline = time.monotonic() + BUDGET_S if BUDGET_S else math.inf
    for turn in count() if BUDGET_S else range(ROUNDS):
        for operation, mode in product(operations, MODES):
            if time.monotonic() > deadline:
                yield turn
                return
            attack(operation, mode, turn, send)
        yield turn


@pytest.mark.slow
def test_no_made_up_request_breaks_the_server(small_server: Server) -> None:
    schema = schemathesis.openapi.from_dict(small_server.get("/openapi.json"))
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    answers: Counter[int] = Counter()
    with requests.Session() as session:
        send = partial(ask, server=small_server, session=session, answers=answers)
        memory_bytes = [resident_bytes(small_server) for _ in rounds(operations, send)]
    print(f"{answers.total()} requests, answers {dict(answers)}, memory after each round {memory_bytes[:SHOWN]}")
    assert answers[200] > 0
    assert answers[422] > 0
    small_server.wait_until_idle()
    assert small_server.get("/health")["status"] == "ok"
    assert "Traceback" not in small_server.log.read_text()
    assert memory_bytes[-1] - memory_bytes[0] < GROWTH_BYTES
