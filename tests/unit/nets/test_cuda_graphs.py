"""Passes are replayed once their weights stay where they are, and called while those change or a recording fails."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from darkroom.nets.cuda_graphs import RECORDED_AFTER, Graphs, Recorder, Replay, Run


class Tape:
    """Records passes as a GPU does: a replay knows the weights of its recording alone."""

    def __init__(self) -> None:
        self.recordings = 0
        self.replays = 0

    def record(self, run: Run, weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Replay:
        self.recordings += 1
        held = list(weights)

        def replay(inputs: Sequence[Tensor]) -> Tensor:
            self.replays += 1
            return run(*held, *inputs)

        return replay


def product(weight: Tensor, x: Tensor) -> Tensor:
    return weight * x


def call(recorder: Recorder, weight: Tensor, *, may_record: bool = True) -> Tensor:
    return recorder([weight], [weight.data_ptr()], [torch.tensor(3.0)], may_record=may_record)


def test_a_pass_is_recorded_once_when_its_weights_have_stayed_for_some_calls() -> None:
    tape, weight = Tape(), torch.tensor(2.0)
    recorder = Recorder(product, tape.record)
    for _ in range(RECORDED_AFTER):
        assert call(recorder, weight) == 6
    assert tape.recordings == 0
    for _ in range(5):
        assert call(recorder, weight) == 6
    assert (tape.recordings, tape.replays) == (1, 5)


def test_other_weights_are_never_answered_by_an_old_recording() -> None:
    tape, plain, merged = Tape(), torch.tensor(2.0), torch.tensor(5.0)
    recorder = Recorder(product, tape.record)
    for _ in range(RECORDED_AFTER + 1):
        call(recorder, plain)
    assert tape.replays == 1
    for _ in range(RECORDED_AFTER):
        assert call(recorder, merged) == 15
        assert tape.replays == 1
    assert call(recorder, merged) == 15
    assert (tape.recordings, tape.replays) == (2, 2)
    assert call(recorder, plain) == 6


def test_nothing_is_recorded_while_something_is_compiled() -> None:
    tape, weight = Tape(), torch.tensor(2.0)
    recorder = Recorder(product, tape.record)
    for _ in range(3 * RECORDED_AFTER):
        assert call(recorder, weight, may_record=False) == 6
    assert tape.recordings == 0


def test_a_recording_that_fails_is_told_once_and_the_pass_is_called(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def failing(run: Run, weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Replay:
        tries.append(1)
        raise torch.OutOfMemoryError("no room")

    recorder, weight = Recorder(product, failing), torch.tensor(2.0)
    for _ in range(3 * RECORDED_AFTER):
        assert call(recorder, weight) == 6
    assert len(tries) == 1
    assert len(caplog.messages) == 1


@pytest.mark.gpu
@torch.inference_mode()
def test_a_recorded_graph_answers_as_the_pass_does() -> None:
    graphs = Graphs()
    weight, x = torch.randn(8, 8, device="cuda"), torch.randn(8, 8, device="cuda")
    replays = [graphs.record(torch.matmul, [weight], [x]) for _ in range(2)]
    for seed in range(3):
        other = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)).cuda()
        first, second = (replay([other]) for replay in replays)
        torch.testing.assert_close(first, weight @ other)
        torch.testing.assert_close(second, weight @ other)
