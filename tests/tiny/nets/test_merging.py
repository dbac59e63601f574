"""Adapters in a tiny network's weights: what they change, and that nothing of them stays."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from darkroom.nets.adapters import change, find_product, read_adapter
from darkroom.nets.merging import Merging, Share, text_places, with_products
from darkroom.nets.network import Network, Variant
from darkroom.nets.store import load
from tests.tiny.adapters import write_tiny_lora
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.encoding import encode_tokens

CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def network(tmp_path: Path, request: pytest.FixtureRequest) -> Network:
    path = write_tiny_checkpoint(tmp_path)
    return load(path, path.with_suffix(".yaml"), CPU, request.param)


def share(path: Path, strength: float = 1.0, rank: int | None = None) -> Share:
    return Share(key=str(path), file=read_adapter(path), strength=strength, rank=rank)


def answers(network: Network) -> list[Tensor]:
    """What the networks make of fixed inputs, under the variant that is set."""
    generator = torch.Generator().manual_seed(5)
    tokens = [[49406, *range(320, 395), 49407]]
    context = encode_tokens(network, [tokens], [[[1.0] * 77]])
    x = torch.randn(2, 4, 8, 8, generator=generator)
    noise = network.denoise(x, torch.tensor([10.0, 500.5]), context.expand(2, -1, -1))
    return [context, noise]


def test_after_any_number_of_changes_the_answers_are_the_first_ones_bit_for_bit(
    network: Network, tmp_path: Path
) -> None:
    one, two = (share(write_tiny_lora(tmp_path, name, seed)) for seed, name in enumerate(("one", "two")))
    before = answers(network)
    for shares in ((one,), (two, one), (one, two), ()):
        network.variant = Variant(unet=shares, text=shares)
        changed = answers(network)
        assert all(torch.equal(a, b) for a, b in zip(before, changed, strict=True)) == (not shares)


def test_a_set_gives_the_same_answers_whatever_was_merged_before(network: Network, tmp_path: Path) -> None:
    one, two = (share(write_tiny_lora(tmp_path, name, seed)) for seed, name in enumerate(("one", "two")))
    network.variant = Variant(unet=(one,), text=(one,))
    first = answers(network)
    network.variant = Variant(unet=(two,), text=(two,))
    answers(network)
    network.variant = Variant(unet=(one,), text=(one,))
    assert all(torch.equal(a, b) for a, b in zip(first, answers(network), strict=True))


def test_strengths_are_the_text_encoders_and_the_unets_own(network: Network, tmp_path: Path) -> None:
    path = write_tiny_lora(tmp_path, "one")
    context, noise = answers(network)
    network.variant = Variant(unet=(share(path, 0.0),), text=(share(path, 1.0),))
    assert not torch.equal(answers(network)[0], context)
    network.variant = Variant(unet=(share(path, 1.0),), text=(share(path, 0.0),))
    changed = answers(network)
    assert torch.equal(changed[0], context)
    assert not torch.equal(changed[1], noise)


def test_only_touched_weights_are_held_twice_and_only_while_they_are_changed(network: Network, tmp_path: Path) -> None:
    plain = network.nbytes
    path = tmp_path / "small.safetensors"
    save_file({"lora_unet_out_2.diff": torch.ones(4, 32, 3, 3), "lora_te_nowhere.diff": torch.ones(3)}, path)
    network.variant = Variant(unet=(share(path),), text=(share(path),))
    answers(network)
    assert network.nbytes == plain + 4 * 32 * 9 * network.dtype.itemsize
    network.variant = Variant()
    answers(network)
    assert network.nbytes == plain


class Two(nn.Module):
    """A module with two layers, one of which has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3)


def test_a_bias_may_be_added_where_there_is_none_and_goes_again(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    save_file({f"lora_te_text_model_{n}.{part}": torch.ones(3, 3)[: 3 if part == "diff" else 1].squeeze(0)
               for n in ("first", "second") for part in ("diff", "diff_b")}, path)  # fmt: skip
    module = Two()
    old = {name: value.clone() for name, value in module.state_dict().items()}
    merging = Merging(module, text_places(module))
    merging.carry([share(path, 2.0)])
    torch.testing.assert_close(module.first.weight, old["first.weight"] + 2)
    torch.testing.assert_close(module.first.bias, torch.full((3,), 2.0))
    torch.testing.assert_close(module.second.bias, old["second.bias"] + 2)
    merging.carry([])
    assert "first.bias" not in module.state_dict()
    assert all(torch.equal(value, old[name]) for name, value in module.state_dict().items())


def test_a_layer_that_does_not_fit_is_left_out_and_the_others_count(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    tensors = {"lora_te_text_model_first.diff": torch.ones(2, 2), "lora_te_text_model_second.diff": torch.ones(3, 3)}
    save_file(tensors, path)
    module = Two()
    old = module.second.weight.clone()
    Merging(module, text_places(module)).carry([share(path)])
    torch.testing.assert_close(module.second.weight, old + 1)


def test_the_original_names_and_those_of_diffusers_mean_the_same_layer(network: Network, tmp_path: Path) -> None:
    changed = []
    for name in ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
                 "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"):  # fmt: skip
        path = tmp_path / f"{name}.safetensors"
        save_file({f"{name}.diff": torch.ones(32, 32)}, path)
        network.variant = Variant(unet=(share(path),))
        changed.append(answers(network)[1])
    network.variant = Variant()
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], answers(network)[1])


@pytest.mark.parametrize("shape", [(600, 600), (40, 30, 3, 3), (40, 30, 1, 1), (3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_added_as_the_changes_that_they_are(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    weight = torch.randn(shape).to(dtype)
    weight = weight.to(memory_format=torch.channels_last) if len(shape) == 4 else weight
    ones = [1] * (len(shape) - 2)
    layers = [
        {"lora_up.weight": torch.randn(shape[0], 2, *ones), "lora_down.weight": torch.randn(2, *shape[1:])},
        {
            "lora_A.weight": torch.randn(3, *shape[1:]),
            "lora_B.weight": torch.randn(shape[0], 3),
            "alpha": torch.tensor(6),
        },
    ]
    expected, products = weight.float(), []
    for parts, rank in zip(layers, (1, None), strict=True):
        expected = expected + change(parts, weight.float(), 0.5, rank).weight
        product = find_product(parts, weight, 0.5, rank)
        assert product is not None
        products.append(product)
    found = with_products(weight, products)
    assert found.stride() == weight.stride()
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "parts",
    [
        {"diff": torch.ones(4, 4)},
        {"lora_up.weight": torch.ones(4, 2), "lora_down.weight": torch.ones(2, 4), "dora_scale": torch.ones(4, 1)},
        {"lora_up.weight": torch.ones(4, 2), "lora_down.weight": torch.ones(2, 5)},
        {"lora_up.weight": torch.ones(5, 2), "lora_down.weight": torch.ones(2, 4)},
    ],
    ids=["another kind", "decomposed", "another width", "another height"],
)
def test_what_is_no_plain_product_is_left_to_the_general_way(parts: dict[str, Tensor]) -> None:
    assert find_product(parts, torch.ones(4, 4), 1.0) is None
