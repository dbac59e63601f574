"""The embedded model by our own kernels: a row's bytes do not depend on what stands beside it."""

from importlib.resources import as_file, files
from pathlib import Path

import pytest
import torch

from darkroom.nets.kernels import find_kernels
from darkroom.nets.network import Network
from darkroom.nets.store import load


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    kernels = find_kernels(tmp_path_factory.mktemp("kernels"))
    if kernels.product is None:
        pytest.skip("no AMX or no C compiler here")
    with as_file(files("darkroom") / "mini") as folder:
        path = Path(folder) / "darkroom-mini.safetensors"
        found = load(path, path.with_suffix(".yaml"), torch.device("cpu"), torch.bfloat16)
    found.compute_by(kernels)
    return found


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (9, 22)])
def test_a_row_is_the_same_alone_and_in_company(network: Network, height: int, width: int) -> None:
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(6, network.latent_channels, height, width, generator=numbers)
    context = torch.randn(6, 77, network.text_width, generator=numbers)
    timesteps = torch.tensor([5.0, 900.0, 300.0, 20.0, 700.0, 111.0])
    together = network.denoise(x, timesteps, context)
    for rows in (1, 2, 4):
        pieces = [torch.split(one, rows) for one in (x, timesteps, context)]
        apart = torch.cat([network.denoise(*piece) for piece in zip(*pieces, strict=True)])
        assert torch.equal(apart, together)
