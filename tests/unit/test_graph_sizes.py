"""The draft's decode graphs hold two rows a request, and the server's list stays as it was."""

from types import SimpleNamespace
from typing import Any

import pytest
from sglang.srt.managers.tp_worker import TpModelWorker
from sglang.srt.model_executor.runner import base_cuda_graph_runner as host

from lvspec_sglang.draft import graph_sizes
from lvspec_sglang.draft.model import DraftModel


def executing(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    """Have the host and the draft read ``config``, a list of batch sizes in it."""
    bag = SimpleNamespace(
        graph=SimpleNamespace(cuda_graph_config=config),
        overlap=SimpleNamespace(enable_two_batch_overlap=False),
    )
    flags = SimpleNamespace(capture=SimpleNamespace(enable_torch_compile=False))
    for module, name, value in (
        (graph_sizes, "get_exec", lambda: bag),
        (host, "get_exec", lambda: bag),
        (host, "get_flags", lambda: flags),
        (host, "get_cuda_graph_batch_size_alignment", lambda **given: 1),
        (host.DllmConfig, "from_server_args", lambda args: None),
    ):
        monkeypatch.setattr(module, name, value)


def test_a_whole_batchs_first_step_has_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = SimpleNamespace(bs=[1, 2, 4, 6], max_bs=6)
    executing(monkeypatch, SimpleNamespace(decode=decode))
    rows = SimpleNamespace(req_to_token_pool=SimpleNamespace(size=2 * 6), server_args=None)
    captured: list[list[int]] = []

    def capture(self: Any, capture_decode_cuda_graph: bool = True) -> None:
        captured.append(host.get_batch_sizes_to_capture(rows)[0])
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TpModelWorker, "init_cuda_graphs", capture)
    with pytest.raises(RuntimeError, match="out of memory"):
        object.__new__(DraftModel).init_cuda_graphs()
    assert captured == [[1, 2, 4, 6, 8, 12]]
    assert (decode.bs, decode.max_bs) == ([1, 2, 4, 6], 6)


@pytest.mark.parametrize("config", [None, SimpleNamespace(decode=SimpleNamespace(bs=None))])
def test_without_graphs_nothing_changes(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    executing(monkeypatch, config)
    with graph_sizes.chain_sizes():
        assert config is None or config.decode.bs is None
