"""The tests' recorded graphs are as strict as captured ones."""

import pytest
import torch

from tests.recorded_graph import Graph, kernel


def test_a_replay_reads_tensors_as_they_are_and_numbers_as_they_were() -> None:
    given, number, kept = torch.tensor([1.0, 2.0]), 10.0, torch.zeros(2)

    def forward() -> torch.Tensor:
        kept.copy_(given)
        return (given.view(2, 1) * number).squeeze(1) + kept[:1]

    graph = Graph(forward)
    given.copy_(torch.tensor([3.0, 4.0]))
    number = 0.0
    assert graph.replay().tolist() == [33.0, 43.0]
    assert kept.tolist() == [3.0, 4.0]


def test_a_kernel_is_a_step_whatever_it_reads() -> None:
    lens, out = torch.tensor([1, 2]), torch.zeros(3)

    @kernel
    def count(lens: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        out[: int(lens.sum())] += 1
        return out.sum()

    graph = Graph(lambda: count(lens, out) * 2)
    assert (graph.output.item(), out.tolist()) == (6.0, [1.0, 1.0, 1.0])
    lens.copy_(torch.tensor([0, 1]))
    assert (graph.replay().item(), out.tolist()) == (8.0, [2.0, 1.0, 1.0])


@pytest.mark.parametrize(
    "wait",
    [
        torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.nonzero,
        lambda tensor: tensor[tensor > 0],
    ],
)  # fmt: skip
def test_a_forward_that_makes_the_host_wait_is_not_captured(wait: object) -> None:
    with pytest.raises(RuntimeError, match="makes the host wait"):
        Graph(lambda: wait(torch.ones(1)))  # type: ignore[operator]


def test_a_step_whose_shape_depends_on_its_tensors_fails_when_replayed() -> None:
    given = torch.tensor([1, 1])
    graph = Graph(lambda: torch.bincount(given))
    given.fill_(3)
    with pytest.raises(AssertionError, match="depends on what is in its tensors"):
        graph.replay()


def test_what_a_graph_made_is_lost_when_another_one_runs() -> None:
    given = torch.ones(2)
    one, other = Graph(lambda: given + 1), Graph(lambda: given + 2)
    assert one.replay().tolist() == [2.0, 2.0]
    other.replay()
    assert one.output.isnan().all()
    assert given.tolist() == [1.0, 1.0]
