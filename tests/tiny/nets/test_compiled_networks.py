"""A network whose passes are compiled: the same answers, with any adapters; and eager where a variant needs that.

The operations are traced as for torch's compiler, and run one by one: what it makes of them is its own affair.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from darkroom.errors import NotANumberError
from darkroom.nets.compiled import ASKED_BEFORE
from darkroom.nets.compiling import Compiler, Run
from darkroom.nets.hypernetworks import Hypernetwork
from darkroom.nets.network import Network, Variant
from darkroom.nets.store import load
from darkroom.nets.vae import MOST_ROWS, VaeUse, rows_at_once
from tests.tiny.adapters import write_tiny_lora
from tests.tiny.checkpoints import write_tiny_checkpoint
from tests.tiny.nets.test_merging import share

CPU = torch.device("cpu")
PATIENCE_S = 120.0


class Counting:
    """A compiler's back end that counts how often what it made is run."""

    def __init__(self) -> None:
        self.runs = 0

    def build(self, traced: GraphModule, examples: Sequence[Tensor]) -> Run:
        def run(*tensors: Tensor) -> Tensor:
            self.runs += 1
            answer: Tensor = traced(*tensors)
            return answer

        return run


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def network(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Network:
    path = write_tiny_checkpoint(tmp_path_factory.mktemp("compiled"), family=request.param)
    return load(path, path.with_suffix(".yaml"), CPU, torch.float32)


@pytest.fixture(scope="module")
def back_end(network: Network) -> Counting:
    """The back end by which the network's passes have been compiled, for two rows of 8 by 8 and one to decode."""
    back_end = Counting()
    compiler = Compiler(back_end.build, threads=1)
    network.compile_with(compiler)
    for ask in (denoised, decoded):
        for _ in range(ASKED_BEFORE):
            ask(network)
        settled(compiler)
    return back_end


def settled(compiler: Compiler) -> None:
    """Wait until nothing is being compiled."""
    deadline = time.monotonic() + PATIENCE_S
    while compiler.is_busy:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def counting(network: Network, back_end: Counting) -> Counting:
    """The same, having run nothing yet, and the network without a variant."""
    network.variant = Variant()
    back_end.runs = 0
    return back_end


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def denoised(network: Network) -> Tensor:
    return network.denoise(noise(2, 4, 8, 8), torch.tensor([10.0, 500.5]), *beside(network))


def beside(network: Network) -> tuple[Tensor, Tensor | None]:
    """Text, and the vector beside it of networks that want one."""
    config = network._unet.config
    labels = config.projection_class_embeddings_input_dim
    return noise(2, 77, int(config.cross_attention_dim)), noise(2, labels) if labels else None


def decoded(network: Network) -> Tensor:
    return network.decode(noise(3, 4, 8, 8))


def eagerly(network: Network, ask: Callable[[Network], Tensor]) -> Tensor:
    compiled, network._compiled = network._compiled, None
    compiled_decoder, network._vae._compiled = network._vae._compiled, None
    answer = ask(network)
    network._compiled, network._vae._compiled = compiled, compiled_decoder
    return answer


def test_compiled_answers_are_the_eager_ones(network: Network, counting: Counting) -> None:
    torch.testing.assert_close(denoised(network), eagerly(network, denoised))
    assert counting.runs == 1
    torch.testing.assert_close(decoded(network), eagerly(network, decoded))
    assert counting.runs == 4


def test_eager_answers_are_the_same_while_another_thread_traces(network: Network, counting: Counting) -> None:
    compiled, counting.runs = network._compiled, 0
    assert compiled

    def larger() -> Tensor:
        context, vector = beside(network)
        return network.denoise(noise(2, 4, 12, 8), torch.tensor([10.0, 500.5]), context, vector)

    expected = eagerly(network, lambda _: larger())
    answers = 0
    while not counting.runs:
        assert torch.equal(larger(), expected)
        answers += 1
    settled(compiled._compiler)
    assert answers > ASKED_BEFORE
    torch.testing.assert_close(larger(), expected)


def test_adapters_that_are_merged_after_compilation_are_in_the_answer(
    network: Network, counting: Counting, tmp_path: Path
) -> None:
    plain = denoised(network)
    network.variant = Variant(unet=(share(write_tiny_lora(tmp_path, "one")),))
    changed = denoised(network)
    assert not torch.allclose(changed, plain)
    torch.testing.assert_close(changed, eagerly(network, denoised))
    network.variant = Variant()
    assert torch.equal(denoised(network), plain)
    assert counting.runs == 3


@pytest.mark.parametrize(
    "variant",
    [
        Variant(tiling=True, vae_use=VaeUse(tiling=True)),
        Variant(hypernetworks=((Hypernetwork({}), 1.0),)),
        Variant(token_merging=0.5),
    ],
    ids=["tiling", "hypernetworks", "token merging"],
)
def test_variants_that_are_more_than_other_weights_are_eager(
    network: Network, counting: Counting, variant: Variant
) -> None:
    network.variant = variant
    assert torch.equal(denoised(network), eagerly(network, denoised))
    assert counting.runs == 0
    decoded(network)
    assert bool(counting.runs) == (not variant.vae_use.tiling)


def test_what_inner_layers_find_is_kept_by_eager_passes(network: Network, counting: Counting) -> None:
    x, timesteps = noise(2, 4, 8, 8), torch.tensor([10.0, 500.5])
    answer, found = network.denoise_and_keep(x, timesteps, *beside(network))
    assert found is not None
    assert torch.equal(answer, eagerly(network, denoised))
    assert counting.runs == 0


def test_a_latent_that_is_not_a_number_is_an_error_of_a_compiled_decoder_too(
    network: Network, counting: Counting
) -> None:
    last = network._vae.module.decoder.conv_out
    kept, last.bias = last.bias, torch.nn.Parameter(torch.full_like(last.bias, torch.nan), requires_grad=False)
    with pytest.raises(NotANumberError):
        decoded(network)
    last.bias = kept
    assert counting.runs == 1


def test_a_gpu_decodes_as_many_pictures_at_once_as_leave_half_of_its_memory_alone() -> None:
    assert rows_at_once(512 * 512, 80 * 10**9, 2) == MOST_ROWS
    assert rows_at_once(1024 * 1024, 12 * 10**9, 2) == 2
    assert rows_at_once(2048 * 2048, 10**9, 4) == 1
