"""The guard itself: it must catch each kind of waiting, and let the rest pass."""

from collections.abc import Callable

import pytest
import torch

from tests import no_sync
from tests.no_sync import NoSync

T, MASK = torch.arange(6.0), torch.arange(6) > 2
WAITING: dict[str, Callable[[], object]] = {
    "item": lambda: T.sum().item(),
    "tolist": lambda: T.tolist(),
    "cpu": lambda: T.cpu(),
    "to": lambda: T.to("cpu"),
    "int": lambda: int(T[0]),
    "float": lambda: float(T[0]),
    "bool": lambda: bool(MASK.any()),
    "if": lambda: 1 if MASK[0] else 0,
    "nonzero": lambda: MASK.nonzero(),
    "where": lambda: torch.where(MASK),
    "mask": lambda: T[MASK],
    "mask write": lambda: T.clone().__setitem__(MASK, 0.0),
    "number at an index": lambda: T.clone().__setitem__(torch.arange(2), 0.0),
    "number at a place": lambda: T.clone().__setitem__(2, 1.0),
    "masked_select": lambda: torch.masked_select(T, MASK),
    "equal": lambda: torch.equal(T, T),
    "upload": lambda: torch.tensor([1, 2]),
    "repeat": lambda: torch.repeat_interleave(T, MASK.long()),
}
FREE: dict[str, Callable[[], object]] = {
    "where": lambda: torch.where(MASK, T, 0.0),
    "gather": lambda: T[torch.arange(3)],
    "slice": lambda: T[1:3],
    "masked_fill": lambda: T.masked_fill(MASK, 0.0),
    "max": lambda: T.max(),
    "full": lambda: torch.full((3,), 2),
    "cast": lambda: T.to(torch.int32),
    "repeat": lambda: torch.repeat_interleave(T, MASK.long(), output_size=3),
    "number in a slice": lambda: T.clone().__setitem__(slice(1, 3), 1.0),
    "number filled in": lambda: T.clone()[2].fill_(1.0),
    "index fill": lambda: T.clone().index_fill_(0, torch.arange(2), 1.0),
}


@pytest.fixture(autouse=True)
def judge_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(no_sync, "PACKAGE", "/tests/unit/")


@pytest.mark.parametrize("name", WAITING)
def test_waiting_is_caught(name: str) -> None:
    with NoSync(), pytest.raises(AssertionError, match=r"test_no_sync\.py"):
        WAITING[name]()


@pytest.mark.parametrize("name", FREE)
def test_the_rest_passes(name: str) -> None:
    with NoSync():
        FREE[name]()


def test_others_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(no_sync, "PACKAGE", "/lvspec_sglang/")
    with NoSync():
        assert T.sum().item() == 15.0
