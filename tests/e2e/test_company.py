"""Many people at once get the pictures that each would get alone."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.serving import Json, Server, apart, first_pictures, serving

TOLERANCE = 6.0
"""Mean difference in 8-bit levels. Kernels chosen by batch size round differently in bf16, and a few steps below the
native size carry that far with the embedded model; the pictures of other requests are tens of levels away.
"""

REQUESTS: tuple[Json, ...] = tuple(
    {"prompt": prompt, "seed": seed, "steps": steps, "width": 64, "height": 64, "sampler_name": sampler}
    for prompt, seed, steps, sampler in (
        ("puppy dog", 1, 6, "Euler a"),
        ("a red apple", 2, 8, "Euler"),
        ("a cat and a red apple", 3, 5, "DPM++ 2M"),
        ("a blue dog", 4, 4, "Heun"),
        ("rocket", 5, 6, "DPM++ 2M SDE"),
        ("snowman", 6, 7, "DDIM"),
        ("(green:1.4) apple", 7, 6, "Euler a"),
        ("tree", 8, 3, "Euler"),
    )
)


def alone(server: Server, requests: Sequence[Json]) -> list[Json]:
    return [server.post("/sdapi/v1/txt2img", request) for request in requests]


def together(server: Server, requests: Sequence[Json]) -> list[Json]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: server.post("/sdapi/v1/txt2img", request), requests))


def test_eight_clients_at_once_get_the_pictures_they_get_alone(server: Server) -> None:
    apiece = first_pictures(alone(server, REQUESTS))
    shared = first_pictures(together(server, REQUESTS))
    differences = [apart(a, b) for a, b in zip(apiece, shared, strict=True)]
    assert max(differences) < TOLERANCE, differences


@pytest.fixture(scope="module")
def exact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exact")


@pytest.fixture(scope="module")
def alone_in_exact_mode(exact_folder: Path) -> Iterator[tuple[Server, list[Json]]]:
    with serving(exact_folder, "--exact") as server:
        yield server, alone(server, REQUESTS)


@pytest.mark.slow
def test_exact_mode_gives_the_same_bytes_in_company(alone_in_exact_mode: tuple[Server, list[Json]]) -> None:
    server, expected = alone_in_exact_mode
    answers = together(server, REQUESTS)
    assert [a["images"] == b["images"] for a, b in zip(answers, expected, strict=True)] == [True] * len(REQUESTS)


@pytest.mark.slow
def test_exact_mode_gives_the_same_bytes_after_a_restart(
    alone_in_exact_mode: tuple[Server, list[Json]], exact_folder: Path
) -> None:
    _, expected = alone_in_exact_mode
    with serving(exact_folder, "--exact") as restarted:
        answers = alone(restarted, REQUESTS[:3])
    assert [a["images"] == b["images"] for a, b in zip(answers, expected, strict=False)] == [True] * 3
