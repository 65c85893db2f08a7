"""The pool configurator counts the draft by its own heads only with the patch."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt import runtime_context
from sglang.srt.layers.cp import utils as cp_utils
from sglang.srt.model_executor import pool_configurator
from sglang.srt.model_executor.pool_configurator import DefaultPoolConfigurator
from transformers import Qwen2Config

from lvspec_sglang.config_json import CONFIG_ENV
from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.patches import draft_memory
from lvspec_sglang.relaxation import Relaxation
from lvspec_sglang.relevance.random import RandomScores
from lvspec_sglang.sat_out import SatOut

LENGTH = 4096
ROWS = 16


@pytest.fixture(autouse=True)
def context(monkeypatch: pytest.MonkeyPatch) -> None:
    """A running server's context, as far as the configurator reads it."""
    bags = {
        "get_schedule": SimpleNamespace(max_running_requests=ROWS, max_total_tokens=None),
        "get_memory": SimpleNamespace(enable_hisparse=False),
        "get_parallel": SimpleNamespace(
            attn_tp_size=1, attn_dcp_size=1, enable_dsa_cache_layer_split=False
        ),
    }
    for name, bag in bags.items():
        for module in (runtime_context, pool_configurator, cp_utils):
            monkeypatch.setattr(module, name, lambda bag=bag: bag, raising=False)
    monkeypatch.setattr(pool_configurator, "mambaish_config", lambda config: None)
    monkeypatch.setattr(pool_configurator, "compute_page_shard_scratch_bytes", lambda *a, **k: 0)
    monkeypatch.delenv(CONFIG_ENV, raising=False)


def model(layers: int, kv_heads: int, head_dim: int, hidden: int) -> SimpleNamespace:
    return SimpleNamespace(
        num_hidden_layers=layers, head_dim=head_dim, v_head_dim=head_dim, hidden_size=hidden,
        get_num_kv_heads=lambda *parts: kv_heads, hf_config=Qwen2Config(), context_len=LENGTH,
        dtype=torch.bfloat16,
    )  # fmt: skip


def budget(target: Any, draft: Any) -> SimpleNamespace:
    """What the host hands its configurator, of a target and a draft."""
    layers = draft and draft.num_hidden_layers
    return SimpleNamespace(
        model_config=target, kv_cache_dtype=torch.bfloat16, kv_cache_dtype_str="auto",
        layer_info=SimpleNamespace(num_effective_layers=target.num_hidden_layers),
        spec_algorithm=SimpleNamespace(
            is_eagle=lambda: False, is_standalone=lambda: True, is_dflash_family=lambda: False
        ),
        spec_aux_config=SimpleNamespace(draft_model_config=draft, eagle_draft_num_layers=layers),
        fused_entry_bytes=lambda kind: None, is_draft_worker=False, use_mla_backend=False,
        server_args=SimpleNamespace(enable_hisparse=False), pp_size=1,
    )  # fmt: skip


def host_configurator(kvc: Any) -> DefaultPoolConfigurator:
    """The host's own, whether or not this process has been patched."""
    construct = DefaultPoolConfigurator.__init__
    configurator = object.__new__(DefaultPoolConfigurator)
    getattr(construct, "__wrapped__", construct)(configurator, kvc)
    return configurator


TARGET = model(layers=8, kv_heads=2, head_dim=64, hidden=256)
WIDE = model(layers=4, kv_heads=8, head_dim=128, hidden=128)
SMALL = model(layers=4, kv_heads=1, head_dim=32, hidden=128)
TARGET_KV = 8 * 2 * (64 + 64) * 2


@pytest.mark.parametrize(("draft", "kv"), [(WIDE, 4 * 8 * 256 * 2), (SMALL, 4 * 64 * 2)])
def test_the_draft_is_counted_by_its_own_heads_only_with_the_patch(draft: Any, kv: int) -> None:
    kvc = budget(TARGET, draft)
    configurator = host_configurator(kvc)
    assert configurator._cell_size == TARGET_KV + TARGET_KV // 2, "four of eight target layers"
    draft_memory.count_everything(None, configurator, kvc)
    assert configurator._cell_size == TARGET_KV + kv + 1
    # The tables of every row, out of the memory that is left for the pool.
    room = 1 << 30
    assert configurator.calculate_pool_sizes(room, 1).max_total_num_tokens == (
        (room - ROWS * LENGTH * 21) // configurator._cell_size
    )


def test_a_rows_tables_take_what_is_counted_for_them() -> None:
    slots = torch.zeros(ROWS, LENGTH, dtype=torch.int32)
    view = DraftKVView(slots, slots.clone(), slots=1)
    relaxation = Relaxation("predicting", RandomScores(()), ROWS, LENGTH, slots[0, :1] > 0)
    tables = view.kept, view.draft_table, SatOut(view).text, relaxation.visual
    assert sum(table.nbytes for table in tables) == ROWS * LENGTH * draft_memory.ROW_BYTES


def test_self_speculation_costs_no_kv() -> None:
    kvc = budget(TARGET, None)
    configurator = host_configurator(kvc)
    draft_memory.count_everything(None, configurator, kvc)
    assert configurator._cell_size == TARGET_KV


def test_a_draft_workers_pool_is_left_alone() -> None:
    kvc = budget(SMALL, None)
    kvc.is_draft_worker = True
    configurator = host_configurator(kvc)
    draft_memory.count_everything(None, configurator, kvc)
    assert configurator._cell_size == 4 * 64 * 2 and not configurator._fixed_overhead_bytes
