"""The longest request leaves room for a round's reserve: not without the patch, and with it."""

from types import SimpleNamespace
from typing import Any

import pytest
from sglang.srt.managers import tp_worker
from sglang.srt.mem_cache import allocation_sizing as sizing

from lvspec_sglang.patches import pool_end

POOL, RESERVE = 512, 22


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the host's worker says of itself at a context length."""
    monkeypatch.setattr(sizing, "get_alloc_reserve_per_decode", lambda: RESERVE)
    monkeypatch.setattr(tp_worker, "page_interleave_shard_size", lambda allocator: 1)
    schedule = SimpleNamespace(max_prefill_tokens=64, max_queued_requests=None)
    monkeypatch.setattr(tp_worker, "get_schedule", lambda: schedule)
    runner = SimpleNamespace(
        effective_logical_max_total_num_tokens=POOL, logical_max_total_num_tokens=POOL,
        token_to_kv_pool_allocator=None, max_running_requests=4, forward_stream=None,
        req_to_token_pool=SimpleNamespace(size=4, max_context_len=POOL),
        token_to_kv_pool=SimpleNamespace(size=POOL),
    )  # fmt: skip
    info = tp_worker.TpModelWorker.get_worker_info
    host = getattr(info, "__wrapped__", info)

    def at(context: int) -> tuple[Any, ...]:
        config = SimpleNamespace(context_len=context)
        worker = SimpleNamespace(
            model_runner=runner, model_config=config, dllm_algorithm=None, random_seed=1,
            device="cpu",
        )  # fmt: skip
        result: tuple[Any, ...] = host(worker)
        return result

    return at


@pytest.mark.parametrize("context", [505, 2048])
def test_the_longest_request_and_its_reserve_exceed_the_pool_only_without_the_patch(
    told: Any, context: int
) -> None:
    host = told(context)
    assert host[pool_end.LONGEST] + RESERVE > POOL
    patched = pool_end.leave_the_reserve(host)
    assert patched[pool_end.LONGEST] + RESERVE <= POOL
    less = host[pool_end.LONGEST] - patched[pool_end.LONGEST]
    assert host[pool_end.LONGEST_INPUT] - patched[pool_end.LONGEST_INPUT] == less
    changed = {pool_end.LONGEST, pool_end.LONGEST_INPUT}
    assert all(patched[i] == host[i] for i in range(len(host)) if i not in changed)


def test_a_context_that_fits_stays_as_it_is(told: Any) -> None:
    assert pool_end.leave_the_reserve(told(400)) == told(400)
