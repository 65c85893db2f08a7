"""How wide a plain round's verify forward is."""

from types import SimpleNamespace

from lvspec_sglang.attention.chain_backend import ChainBackend
from lvspec_sglang.attention.plain_width import plain_width
from lvspec_sglang.attention.torch_native import ChainTorchBackend


def test_a_backend_that_plans_the_servers_width_gets_it() -> None:
    for batch in (1, 16, 1000):
        assert plain_width(SimpleNamespace(), batch, 11) == 11


def test_a_backend_that_takes_any_width_is_padded_as_long_as_it_is_free() -> None:
    assert plain_width(ChainTorchBackend, 1, 11) == 1
    assert plain_width(ChainBackend, 23, 11) == 11
    assert plain_width(ChainBackend, 24, 11) == 1
