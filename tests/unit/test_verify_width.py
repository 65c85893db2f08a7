"""How wide a round's verify forward is."""

from types import SimpleNamespace

import torch

from lvspec_sglang.attention.chain_backend import ChainBackend
from lvspec_sglang.attention.torch_native import ChainTorchBackend
from lvspec_sglang.attention.verify_width import verify_width
from lvspec_sglang.verify_forward import without_padding


def test_a_backend_that_plans_the_servers_width_gets_it() -> None:
    for batch in (1, 16, 1000):
        for tokens in (1, 6, 11):
            assert verify_width(SimpleNamespace(), batch, tokens, 11) == 11


def test_a_backend_that_takes_any_width_is_padded_as_long_as_it_is_free() -> None:
    assert verify_width(ChainTorchBackend, 1, 1, 11) == 1
    assert verify_width(ChainTorchBackend, 1, 6, 11) == 6
    assert verify_width(ChainBackend, 23, 6, 11) == 11
    assert verify_width(ChainBackend, 24, 6, 11) == 6
    assert verify_width(ChainBackend, 24, 11, 11) == 11


def test_what_was_computed_for_the_padding_is_cut_off_request_by_request() -> None:
    rows = torch.arange(2 * 5 * 3).view(10, 3)
    assert without_padding(rows, 5, 2).tolist() == rows[[0, 1, 5, 6]].tolist()
    assert without_padding(rows[:, 0], 5, 1).tolist() == [0, 15]
    assert without_padding(rows, 5, 5) is rows
