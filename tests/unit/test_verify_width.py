"""How wide a round's verify forward is."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lvspec_sglang.attention.chain_backend import ChainBackend
from lvspec_sglang.attention.torch_native import ChainTorchBackend
from lvspec_sglang.attention.verify_width import ANY_WIDTH, PLANNED, planning, verify_width
from lvspec_sglang.verify_forward import without_padding


def test_a_backend_that_plans_the_servers_width_gets_it() -> None:
    for batch in (1, 16, 1000):
        for tokens in (1, 6, 11):
            assert verify_width(SimpleNamespace(), batch, tokens, 11) == 11


@pytest.mark.parametrize(
    ("module", "name", "what"),
    [
        ("flashattention_backend", "FlashAttentionBackend", f"self.{PLANNED} = "),
        ("triton_backend", "TritonAttnBackend", "def _target_verify_num_tokens_per_req(self, spec"),
    ],
)
def test_the_hosts_backends_are_called_as_they_are_named(module: str, name: str, what: str) -> None:
    spec = importlib.util.find_spec(f"sglang.srt.layers.attention.{module}")
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).read_text()
    assert name in ANY_WIDTH and f"class {name}(" in text and what in text


def test_fa3_plans_the_rounds_width_and_then_the_servers() -> None:
    backend = SimpleNamespace(**{PLANNED: 11})
    with pytest.raises(RuntimeError), planning(backend, 6):
        assert getattr(backend, PLANNED) == 6
        raise RuntimeError
    assert getattr(backend, PLANNED) == 11
    other = SimpleNamespace()
    with planning(other, 6):
        assert not vars(other)


def test_a_backend_that_takes_any_width_is_padded_as_long_as_it_is_free() -> None:
    assert verify_width(ChainTorchBackend, 1, 1, 11) == 1
    assert verify_width(ChainTorchBackend, 1, 6, 11) == 6
    assert verify_width(ChainBackend(), 23, 6, 11) == 11
    assert verify_width(ChainBackend(), 24, 6, 11) == 6
    assert verify_width(ChainBackend(), 24, 11, 11) == 11


def test_what_was_computed_for_the_padding_is_cut_off_request_by_request() -> None:
    rows = torch.arange(2 * 5 * 3).view(10, 3)
    assert without_padding(rows, 5, 2).tolist() == rows[[0, 1, 5, 6]].tolist()
    assert without_padding(rows[:, 0], 5, 1).tolist() == [0, 15]
    assert without_padding(rows, 5, 5) is rows
