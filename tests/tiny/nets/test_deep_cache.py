"""A UNet whose inner layers are skipped: with what they found just now it answers as if they were not."""

import pytest
import torch
from torch import Tensor

from darkroom.engine.runner import estimate_x0
from darkroom.jobs.ops import Cond, Kept, Row
from darkroom.nets.network import Network, Variant
from darkroom.nets.store import load
from tests.tiny.checkpoints import write_tiny_checkpoint

CPU = torch.device("cpu")
FAMILIES = ["sd1", "sdxl"]


@pytest.fixture(scope="module", params=FAMILIES)
def network(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Network:
    path = write_tiny_checkpoint(tmp_path_factory.mktemp("deep"), family=request.param)
    return load(path, path.with_suffix(".yaml"), CPU, torch.float32)


def rows(network: Network, kept: list[Kept] | None = None, *, shallow: bool = False, level: float = 1.0) -> list[Row]:
    """Two inputs at a noise level, with where their features are kept."""
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    width = int(network._unet.config.cross_attention_dim)
    labels = network._unet.config.projection_class_embeddings_input_dim
    places: list[Kept] | list[None] = kept or [None, None]
    return [
        Row(
            noise(4, 8, 8),
            level,
            350.0 * level,
            Cond(noise(77, width), noise(labels) if labels else None),
            None,
            None,
            one,
            shallow,
        )
        for one in places
    ]


def answer(network: Network, asked: list[Row]) -> Tensor:
    with torch.inference_mode():
        return torch.stack(estimate_x0(network, asked))


def test_with_what_was_found_just_now_the_answer_is_the_same(network: Network) -> None:
    kept = [Kept(), Kept()]
    whole = answer(network, rows(network, kept))
    assert torch.equal(whole, answer(network, rows(network)))
    torch.testing.assert_close(answer(network, rows(network, kept, shallow=True)), whole)


def test_at_another_level_what_was_found_stands_in_and_is_not_found_anew(network: Network) -> None:
    kept = [Kept(), Kept()]
    answer(network, rows(network, kept))
    found = [one.features for one in kept]
    near = answer(network, rows(network, kept, shallow=True, level=0.98))
    exact = answer(network, rows(network, level=0.98))
    assert all(one.features is was for one, was in zip(kept, found, strict=True))
    assert 0 < (near - exact).abs().max() < 0.2 * exact.std()


def test_rows_that_skip_and_rows_that_do_not_are_answered_together(network: Network) -> None:
    kept = [Kept(), Kept()]
    first = answer(network, rows(network, kept))
    one, other = rows(network, kept)[0], rows(network, kept, shallow=True)[1]
    torch.testing.assert_close(answer(network, [one, other]), first)


def test_skipping_goes_with_pictures_that_tile(network: Network) -> None:
    kept = [Kept(), Kept()]
    network.variant = Variant(tiling=True)
    try:
        whole = answer(network, rows(network, kept))
        torch.testing.assert_close(answer(network, rows(network, kept, shallow=True)), whole)
    finally:
        network.variant = Variant()
