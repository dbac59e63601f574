"""Adapters in and out of weights in any order: what is there depends on the present set alone, to the last bit."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from darkroom.nets.adapters import AdapterFile
from darkroom.nets.eight_bits import EIGHT_BITS
from darkroom.nets.merging import Merging, Share, text_places

LAYERS = ("first", "second", "norm")
FORMATS = (torch.float32, torch.bfloat16, torch.float16, EIGHT_BITS)


class Three(nn.Module):
    """Layers of several kinds, one of which has no bias."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(5, 7, bias=False)
        self.second = nn.Linear(7, 5)
        self.norm = nn.LayerNorm(5)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator).to(dtype)
        self.requires_grad_(False)


def adapter(seed: int) -> AdapterFile:
    """A low rank for the first layer, all of the second and a bias for it, or for the norm."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    layers = {
        "first": {"lora_up.weight": noise(7, 2), "lora_down.weight": noise(2, 5), "alpha": torch.tensor(1.5)},
        "second": {"diff": noise(5, 7), "diff_b": noise(5)},
        "norm": {"w_norm": noise(5), "b_norm": noise(5)},
    }
    chosen = [name for place, name in enumerate(LAYERS) if (seed + place) % 3]
    return AdapterFile({f"lora_te_text_model_{name}": layers[name] for name in chosen}, {})


FILES = [adapter(seed) for seed in range(4)]

shares = st.builds(
    lambda number, strength, rank: Share(key=number, file=FILES[number], strength=strength, rank=rank),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.5, 1.0, -2.0]),
    st.sampled_from([None, 1]),
)
sets = st.lists(shares, max_size=3)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone().view(torch.uint8) for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@settings(deadline=None)
@given(st.lists(sets, max_size=6), sets, st.sampled_from(FORMATS))
def test_weights_depend_on_the_present_set_and_on_nothing_before(
    history: list[list[Share]], last: list[Share], dtype: torch.dtype
) -> None:
    module, fresh = Three(dtype), Three(dtype)
    untouched = bits(module)
    merging = Merging(module, text_places(module))
    for wanted in history:
        merging.carry(wanted)
    merging.carry(last)
    Merging(fresh, text_places(fresh)).carry(last)
    assert same(bits(module), bits(fresh))
    merging.carry([])
    assert same(bits(module), untouched)
    assert merging.nbytes == 0
