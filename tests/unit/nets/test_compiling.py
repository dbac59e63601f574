"""Passes that are compiled in the background answer as eager ones do, whatever the weights are; until then, and where
it fails, eager answers.
"""

import logging
import os
import time
from collections.abc import Sequence
from gc import collect
from pathlib import Path
from threading import Event
from weakref import ref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from darkroom.nets.compiled import ASKED_BEFORE, MOST_PADDING, MOST_PASSES, MOST_SHAPES, ROWS, Compiled, Key, padded
from darkroom.nets.compiling import Build, Compiler, Run, Weights, inductor, keep_compiled
from darkroom.nets.cuda_graphs import RECORDED_AFTER
from darkroom.nets.packing import pack_layers

PATIENCE_S = 120.0


def as_traced(traced: GraphModule, examples: Sequence[Tensor]) -> Run:
    """Compiles nothing: runs the operations that were traced, one by one."""
    run: Run = traced
    return run


class Small(nn.Module):
    """A convolution, a norm and a layer, one with weights that adapters may take the place of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.out = nn.Linear(8, 4, bias=False)
        pack_layers(self)
        self.requires_grad_(False)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """`[B, 4, h, w]` and `[B]` to `[B, 4, h, w]`."""
        seen = torch.nn.functional.silu(self.norm(self.conv(x))) * scale[:, None, None, None]
        answer: Tensor = self.out(seen.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return answer


def apply(module: nn.Module, x: Tensor, scale: Tensor) -> Tensor:
    answer: Tensor = module(x, scale)
    return answer


def inputs(rows: int, size: int = 8) -> tuple[Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 4, size, size, generator=numbers), torch.rand(rows, generator=numbers) + 0.5


def passes(module: nn.Module, build: Build = as_traced) -> tuple[Compiled, Compiler]:
    compiler = Compiler(build, threads=1)
    return Compiled(compiler, module, apply, "the small one"), compiler


def settled(compiler: Compiler) -> None:
    """Wait until nothing is being compiled."""
    deadline = time.monotonic() + PATIENCE_S
    while compiler.is_busy:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(some: Compiled, compiler: Compiler, *given: Tensor) -> Tensor | None:
    """Ask so often that it is worth a compilation, wait for that, and ask again."""
    for _ in range(ASKED_BEFORE):
        assert some.find_answer(*given) is None
    settled(compiler)
    return some.find_answer(*given)


@torch.inference_mode()
def test_what_was_compiled_answers_as_the_module_does() -> None:
    module = Small()
    some, compiler = passes(module)
    answer = ask(some, compiler, *inputs(2))
    assert answer is not None
    torch.testing.assert_close(answer, module(*inputs(2)))


@torch.inference_mode()
def test_rows_that_fill_a_batch_up_change_nothing_for_the_others() -> None:
    module = Small()
    some, compiler = passes(module)
    answer = ask(some, compiler, *inputs(7))
    assert answer is not None
    assert len(answer) == 7
    torch.testing.assert_close(answer, module(*inputs(7)))
    same = some.find_answer(*inputs(8))
    assert same is not None
    torch.testing.assert_close(same, module(*inputs(8)))


@torch.inference_mode()
def test_weights_that_were_replaced_after_compilation_are_seen() -> None:
    module = Small()
    some, compiler = passes(module)
    before = ask(some, compiler, *inputs(2))
    assert before is not None
    untouched = module.out.weight
    module.out.weight = nn.Parameter(untouched * 2, requires_grad=False)
    after = some.find_answer(*inputs(2))
    assert after is not None
    torch.testing.assert_close(after, before * 2)
    module.out.weight = untouched
    again = some.find_answer(*inputs(2))
    assert again is not None
    assert torch.equal(again, before)


@torch.inference_mode()
def test_eager_answers_where_weights_have_another_form_than_was_compiled_for() -> None:
    module = Small()
    some, compiler = passes(module)
    assert ask(some, compiler, *inputs(2)) is not None
    plain = module.out.weight
    module.out.weight = nn.Parameter(plain.double(), requires_grad=False)
    assert some.find_answer(*inputs(2)) is None
    module.out.weight = plain
    assert some.find_answer(*inputs(2)) is not None
    module.out.bias = nn.Parameter(torch.ones(4), requires_grad=False)
    assert some.find_answer(*inputs(2)) is None


@torch.inference_mode()
def test_eager_answers_while_something_is_compiled_and_nothing_else_begins() -> None:
    module = Small()
    begun, may_end = Event(), Event()
    seen: list[int] = []

    def slow(traced: GraphModule, examples: Sequence[Tensor]) -> Run:
        seen.append(len(examples[-1]))
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return as_traced(traced, examples)

    some, compiler = passes(module, slow)
    for _ in range(ASKED_BEFORE):
        some.find_answer(*inputs(2))
    assert begun.wait(PATIENCE_S)
    for _ in range(2 * ASKED_BEFORE):
        assert some.find_answer(*inputs(2)) is None
        assert some.find_answer(*inputs(4)) is None
        module(*inputs(2))
    assert seen == [2]
    may_end.set()
    settled(compiler)
    assert some.find_answer(*inputs(2)) is not None
    settled(compiler)


@torch.inference_mode()
def test_a_hook_that_comes_while_something_is_traced_is_no_part_of_it() -> None:
    module = Small()

    def meddling(traced: GraphModule, examples: Sequence[Tensor]) -> Run:
        assert not any("mul_99" in str(node) for node in traced.graph.nodes)
        return as_traced(traced, examples)

    some, compiler = passes(module, meddling)
    hook = module.conv.register_forward_hook(lambda _, __, answer: answer * 99)
    answer = ask(some, compiler, *inputs(2))
    hook.remove()
    assert answer is not None
    torch.testing.assert_close(answer, module(*inputs(2)))


@torch.inference_mode()
def test_a_compilation_that_fails_is_told_once_and_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def failing(traced: GraphModule, examples: Sequence[Tensor]) -> Run:
        tries.append(1)
        raise AssertionError("a bug of the compiler")

    some, compiler = passes(Small(), failing)
    with caplog.at_level(logging.WARNING):
        assert ask(some, compiler, *inputs(2)) is None
        for _ in range(3 * ASKED_BEFORE):
            assert some.find_answer(*inputs(2)) is None
            settled(compiler)
    assert len(tries) == 1
    assert len(caplog.messages) == 1
    assert "a bug of the compiler" in caplog.text


@torch.inference_mode()
def test_a_compiled_pass_that_answers_wrongly_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(traced: GraphModule, examples: Sequence[Tensor]) -> Run:
        return lambda *tensors: traced(*tensors) * 1.1

    some, compiler = passes(Small(), wrong)
    with caplog.at_level(logging.WARNING):
        assert ask(some, compiler, *inputs(2)) is None
    assert "off by 10.0%" in caplog.text


@torch.inference_mode()
def test_no_more_passes_are_kept_than_a_bound_and_those_most_asked_for_stay() -> None:
    some, compiler = passes(Small())
    sizes = [4 + number for number in range(MOST_PASSES + 1)]
    for number, size in enumerate(sizes[:-1]):
        assert ask(some, compiler, *inputs(1, size)) is not None
        for _ in range(10 * (number > 0)):
            some.find_answer(*inputs(1, size))
    rival = inputs(1, sizes[-1])
    while some.find_answer(*rival) is None:
        settled(compiler)
    assert some.find_answer(*inputs(1, sizes[0])) is None
    assert all(some.find_answer(*inputs(1, size)) is not None for size in sizes[1:])


@torch.inference_mode()
def test_shapes_that_are_asked_for_once_do_not_pile_up() -> None:
    some, compiler = passes(Small())
    assert ask(some, compiler, *inputs(1, 8)) is not None
    for size in range(9, 9 + MOST_SHAPES + 5):
        some.find_answer(torch.zeros(1, 4, 1, size), torch.ones(1))
    assert len(some._asked) <= MOST_SHAPES
    assert some.find_answer(*inputs(1, 8)) is not None


def test_a_module_that_is_gone_is_not_kept_for_its_compilation() -> None:
    begun, may_end = Event(), Event()

    def slow(traced: GraphModule, examples: Sequence[Tensor]) -> Run:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return as_traced(traced, examples)

    module = Small()
    some, compiler = passes(module, slow)
    weight = ref(module.conv.weight)
    for _ in range(ASKED_BEFORE):
        some.find_answer(*inputs(2))
    assert begun.wait(PATIENCE_S)
    del some, module
    collect()
    assert weight() is None
    may_end.set()
    settled(compiler)


@given(st.integers(1, 200))
def test_padding_is_never_more_than_compiling_brings(rows: int) -> None:
    size = padded(rows)
    if size is None:
        assert rows > ROWS[-1] or rows not in ROWS
    else:
        assert size in ROWS
        assert 0 <= size - rows <= MOST_PADDING * size


def test_powers_of_two_and_pairs_of_few_pictures_need_no_padding() -> None:
    assert [padded(rows) for rows in (1, 2, 4, 6, 8, 16, 32, 64)] == [1, 2, 4, 6, 8, 16, 32, 64]


def test_pictures_are_passed_channels_last_and_all_else_in_plain_order() -> None:
    key = Key(2, (((4, 8, 8), torch.float16), ((77, 16), torch.float16), ((), torch.float32)))
    picture, text, scale = key.forms(torch.device("cpu"))
    assert picture.stride == (256, 1, 32, 4)
    assert text.stride == (77 * 16, 16, 1)
    assert scale.shape == (2,)
    assert str(key) == "2 rows of 4×8×8, 77×16"


def test_weights_are_those_of_the_moment() -> None:
    module = Small()
    weights = Weights(module)
    assert [id(one) for one in weights.now()] == [id(one) for one in module.parameters()]
    module.conv.bias = nn.Parameter(torch.zeros(8), requires_grad=False)
    assert any(one is module.conv.bias for one in weights.now())
    assert not weights.has_grown()


@pytest.mark.filterwarnings("ignore:`torch.jit")
@torch.inference_mode()
def test_torchs_own_compiler_answers_as_the_module_does_and_keeps_what_it_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    keep_compiled(tmp_path / "compiled")
    module = Small()
    some, compiler = passes(module, inductor)
    answer = ask(some, compiler, *inputs(3))
    assert answer is not None
    torch.testing.assert_close(answer, module(*inputs(3)))
    module.out.weight = nn.Parameter(module.out.weight * 2, requires_grad=False)
    changed = some.find_answer(*inputs(3))
    assert changed is not None
    torch.testing.assert_close(changed, answer * 2)
    assert any((tmp_path / "compiled").rglob("*.so"))


def test_a_folder_that_the_environment_names_goes_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    keep_compiled(tmp_path)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit")
@torch.inference_mode()
def test_on_a_gpu_small_batches_answer_as_the_module_does_and_see_other_weights() -> None:
    module = Small().to("cuda", torch.float16)
    some, compiler = passes(module, inductor)
    given = [one.cuda().half() for one in inputs(2)]
    assert ask(some, compiler, *given) is not None
    plain = module.out.weight
    for factor in (1, 2, 1):
        module.out.weight = plain if factor == 1 else nn.Parameter(plain * factor, requires_grad=False)
        for _ in range(3 * RECORDED_AFTER):
            answer = some.find_answer(*given)
            assert answer is not None
            torch.testing.assert_close(answer, module(*given), rtol=1e-2, atol=1e-2)
