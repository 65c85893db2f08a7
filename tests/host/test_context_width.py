"""What the host's backends hold of a request: the context without the patch, a row with it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.model_executor.model_runner_components import attention_backend_setup as setup

from lvspec_sglang.patches.context_width import over_whole_rows

CONTEXT, WIDTH = 64, 11
host = getattr(setup.build_attention_backends, "__wrapped__", setup.build_attention_backends)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A runner whose backend has, as the host's do, a page table as wide as the context."""

    def build(model_runner: Any, **how: Any) -> Any:
        pages = torch.zeros(1, model_runner.model_config.context_len, dtype=torch.int32)
        return SimpleNamespace(page_table=pages)

    features = SimpleNamespace(enable_two_batch_overlap=False)
    monkeypatch.setattr(setup, "_build_resolved_backend", build)
    monkeypatch.setattr(setup, "get_disagg", lambda: SimpleNamespace(enable_pdmux=False))
    monkeypatch.setattr(setup, "get_exec", lambda: SimpleNamespace(overlap=features))
    table = torch.arange(2 * (CONTEXT + 2 * WIDTH), dtype=torch.int32).view(2, -1)
    return SimpleNamespace(
        device="cpu", server_args=None, is_draft_worker=False, draft_attention_backend=None,
        prefill_attention_backend_str="fa3", decode_attention_backend_str="fa3",
        model_config=SimpleNamespace(context_len=CONTEXT, attention_arch=None),
        req_to_token_pool=SimpleNamespace(req_to_token=table),
    )  # fmt: skip


def pages_of_the_last_round(backends: Any, runner: Any) -> torch.Tensor:
    """The page table where a request lacks one token of the context and verifies a chain."""
    pages, length = backends.attn_backend.page_table, CONTEXT - 1 + WIDTH
    assert pages.shape[1] >= length, "a kernel would read past the row"
    pages[0, :length] = runner.req_to_token_pool.req_to_token[1, :length]
    return pages


def test_the_last_round_leaves_the_page_table_without_the_patch_and_fits_with_it(
    runner: Any,
) -> None:
    with pytest.raises(AssertionError, match="past the row"):
        pages_of_the_last_round(host(model_runner=runner), runner)
    pages = pages_of_the_last_round(over_whole_rows(host, model_runner=runner), runner)
    assert pages.shape[1] == runner.req_to_token_pool.req_to_token.shape[1]
    assert runner.model_config.context_len == CONTEXT


def test_the_context_is_as_before_where_no_backend_can_be_built(runner: Any) -> None:
    def fails(model_runner: Any) -> None:
        raise RuntimeError("no such backend")

    with pytest.raises(RuntimeError, match="no such backend"):
        over_whole_rows(fails, model_runner=runner)
    assert runner.model_config.context_len == CONTEXT
