"""UNets by our own kernels: a row's bytes do not depend on what stands beside it."""

from collections.abc import Callable, Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from darkroom.nets.kernels import Kernels, find_kernels
from darkroom.nets.network import Network, Variant
from darkroom.nets.rows import part_rows
from darkroom.nets.store import load
from darkroom.nets.upsampling import QuickUpsample

ROWS = 6

# Operators that compute every number, or every row of numbers, by itself and in the same way wherever it stands.
PLAIN = frozenset({
    "_unique2", "add_", "cat", "empty_like", "expand", "expand_as", "flatten", "index", "layer_norm", "new_empty",
    "pad", "permute", "reshape", "select", "slice", "split", "to", "upsample_nearest2d", "view",
})  # fmt: skip


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    found = find_kernels(tmp_path_factory.mktemp("kernels"))
    if found.product is None:
        pytest.skip("no AMX or no C compiler here")
    return found


@pytest.fixture
def network(kernels: Kernels) -> Network:
    found = load_mini()
    found.compute_by(kernels)
    return found


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def load_mini(dtype: torch.dtype = torch.bfloat16) -> Network:
    with as_file(files("darkroom") / "mini") as folder:
        path = Path(folder) / "darkroom-mini.safetensors"
        return load(path, path.with_suffix(".yaml"), torch.device("cpu"), dtype)


def some_rows(network: Network, count: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and contexts."""
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(count, network.latent_channels, height, width, generator=numbers)
    context = torch.randn(count, 77, network.text_width, generator=numbers)
    return x, torch.rand(count, generator=numbers) * 999, context


def apart(network: Network, given: tuple[Tensor, ...], rows: int) -> Tensor:
    pieces = zip(*(torch.split(one, rows) for one in given), strict=True)
    return torch.cat([network.denoise(*piece) for piece in pieces])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (9, 22)])
def test_a_row_is_the_same_alone_and_in_company(network: Network, height: int, width: int) -> None:
    given = some_rows(network, ROWS, height, width)
    together = network.denoise(*given)
    for rows in (1, 2, 4):
        assert torch.equal(apart(network, given, rows), together)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 22), (3, 3)])
def test_rows_that_are_computed_apart_are_the_same_in_any_company(
    network: Network, threads: Callable[[int], None], height: int, width: int
) -> None:
    given = some_rows(network, 48, height, width)
    threads(1)
    alone = apart(network, given, 1)
    network.part_rows()
    assert network.has_rows_apart
    assert (apart(network, given, 1) - alone).abs().max() < 0.05
    alone = apart(network, given, 1)
    threads(3)
    for rows in (1, 7, 48):
        assert torch.equal(apart(network, given, rows), alone)
    assert torch.get_num_threads() == 3


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Notes what torch computes, and for how many rows."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[tuple[str, int]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        first = args[0] if args and isinstance(args[0], Tensor) and args[0].dim() else torch.empty(1)
        self.seen.add((func.overloadpacket.__name__, len(first)))
        return func(*args, **(kwargs or {}))


def test_what_doubling_holds_beside_the_weights_is_counted(network: Network) -> None:
    plain = load_mini()
    doubled = [part.conv.weight for part in plain._unet.modules() if isinstance(part, QuickUpsample)]
    assert doubled
    beside = sum(weight.nbytes * 16 // 9 for weight in doubled)
    assert network.nbytes == plain.nbytes + beside
    network.denoise(*some_rows(network, 2, 8, 8))
    held = [part.conv._doubled[1].nbytes for part in network._unet.modules() if isinstance(part, QuickUpsample)]
    assert sum(held) == beside


def test_tiling_and_reused_layers_keep_rows_apart(network: Network) -> None:
    network.part_rows()
    given = some_rows(network, ROWS, 8, 8)
    together, features = network.denoise_and_keep(*given)
    assert features is not None
    for variant in (Variant(), Variant(tiling=True), Variant()):
        network.variant = variant
        for rows in (1, 2, 3):
            pieces = list(zip(*(torch.split(one, rows) for one in (*given, features)), strict=True))
            whole = network.denoise(*given), network.denoise(*given, features=features)
            assert torch.equal(torch.cat([network.denoise(*piece[:3]) for piece in pieces]), whole[0])
            outer = [network.denoise(*piece[:3], features=piece[3]) for piece in pieces]
            assert torch.equal(torch.cat(outer), whole[1])
    assert torch.equal(network.denoise(*given), together)


def test_no_other_kernel_is_given_more_than_a_row(network: Network) -> None:
    network.part_rows()
    given = some_rows(network, ROWS, 8, 8)
    network.denoise(*given)  # which packs the weights
    with Watch() as watch:
        network.denoise(*given)
    assert {name for name, length in watch.seen if length % ROWS == 0} <= PLAIN
    assert {"_convolution_pointwise", "silu", "sin", "cos"} <= {name for name, _ in watch.seen}


def test_rows_are_not_apart_where_other_kernels_do_the_work(kernels: Kernels) -> None:
    for network, by in (
        (load_mini(), Kernels()),
        (load_mini(), Kernels(attention=kernels.attention, norm=kernels.norm)),
        (load_mini(), Kernels(product=kernels.product, norm=kernels.norm)),
        (load_mini(), Kernels(product=kernels.product, attention=kernels.attention)),
        (load_mini(torch.float32), kernels),
    ):
        network.compute_by(by)
        network.part_rows()
        assert not network.has_rows_apart


def test_rows_are_not_apart_in_a_network_that_is_not_known() -> None:
    assert not part_rows(nn.Sequential(nn.Identity(), nn.Softmax()))
