"""The request table holds what the host reserves: not without the patch, and with it."""

from types import SimpleNamespace

import pytest
import torch
from sglang.srt.mem_cache import allocation_sizing as sizing

from lvspec_sglang.patches import row_width, slot_writer

CONTEXT = 64


@pytest.fixture(params=[10, 32])
def reserve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What a round of so many drafted tokens reserves for a request."""
    steps = request.param
    spec = SimpleNamespace(
        speculative_algorithm="STANDALONE", speculative_num_steps=steps, speculative_eagle_topk=1
    )
    monkeypatch.setattr(sizing, "get_spec", lambda: spec)
    monkeypatch.setattr(sizing, "get_alloc_page_size", lambda: 1)
    monkeypatch.setattr(sizing, "max_speculative_num_draft_tokens", lambda: steps + 1)
    return sizing.get_alloc_reserve_per_decode()


def reserve_at_the_end(extra: int, reserve: int) -> torch.Tensor:
    """A table after a round of a request with all but the last four tokens of the context."""
    table = torch.zeros(2, CONTEXT + extra, dtype=torch.int32)
    start, slots = torch.tensor([CONTEXT - 4]), torch.arange(1, reserve + 1, dtype=torch.int32)
    rows = torch.tensor([0])
    slot_writer.assign_req_to_token_pool(rows, table, start, start + reserve, slots, 1)
    return table


def test_the_reserve_leaves_the_row_without_the_patch_and_fits_with_it(reserve: int) -> None:
    host = getattr(
        sizing.get_req_to_token_extra_context_len,
        "__wrapped__",
        sizing.get_req_to_token_extra_context_len,
    )
    assert reserve - 4 > host()
    with pytest.raises(RuntimeError, match="expanded size"):
        reserve_at_the_end(host(), reserve)
    table = reserve_at_the_end(row_width.hold_the_reserve(host()), reserve)
    assert table.count_nonzero(dim=1).tolist() == [reserve, 0]
