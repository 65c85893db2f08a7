"""What the ranks of a tensor-parallel group take from the first."""

from types import SimpleNamespace

import pytest
import torch

from lvspec_sglang import ranks
from lvspec_sglang.verify.rule import Verdict

FIRST = Verdict(
    torch.tensor([2, 1], dtype=torch.int32),
    torch.tensor([[5, 6, 7], [8, 9, 10]]),
    torch.tensor([[0, 3, 3], [3, 3, 3]], dtype=torch.int8),
    torch.tensor([0.5, 0.7]),
)


class Group:
    """A group of ``world_size`` whose rank 0 has come to ``FIRST``; we are another rank."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def broadcast(self, tensor: torch.Tensor, src: int) -> torch.Tensor:
        assert src == 0
        (whole,) = (first for first in FIRST if first.dtype == tensor.dtype)
        return tensor.copy_(whole)


def own() -> Verdict:
    """A verdict that differs in all there is."""
    return Verdict(*(torch.zeros_like(tensor) for tensor in FIRST))


def in_a_group(monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    parallel = SimpleNamespace(tp_group=Group(world_size))
    monkeypatch.setattr(ranks, "get_parallel", lambda: parallel)


def test_every_rank_commits_what_the_first_does(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_group(monkeypatch, 2)
    verdict = ranks.first_verdict(own(), check=False)
    assert torch.equal(verdict.accept_lens, FIRST.accept_lens)
    assert torch.equal(verdict.tokens, FIRST.tokens)


@pytest.mark.parametrize("name", Verdict._fields)
def test_a_check_meets_any_difference(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    in_a_group(monkeypatch, 2)
    alike = Verdict(*(tensor.clone() for tensor in FIRST))
    ranks.first_verdict(alike, check=True)
    with pytest.raises(AssertionError, match="ranks decided"):
        ranks.first_verdict(alike._replace(**{name: getattr(own(), name)}), check=True)


def test_one_rank_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_group(monkeypatch, 1)
    assert not ranks.first_verdict(own(), check=True).tokens.any()
