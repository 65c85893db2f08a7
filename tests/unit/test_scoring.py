"""What is refused when a scorer is connected to a target."""

from types import SimpleNamespace

import pytest
import torch

from lvspec_sglang.relaxation import Relaxation
from lvspec_sglang.relevance import make_scorer
from lvspec_sglang.scoring import connect


@pytest.mark.parametrize("relevance", ["focus", "attention", "random"])
def test_a_kv_cache_of_another_type_than_the_model_is_refused(relevance: str) -> None:
    """A checkpoint may ask for quantised KV where the arguments say auto."""
    scorer, guarded = make_scorer(relevance, (), 4), torch.zeros(10, dtype=torch.bool)
    relaxation = Relaxation("predicting", scorer, 2, 20, guarded)
    runner = SimpleNamespace(
        attn_backend=object(), kv_cache_dtype=torch.float8_e4m3fn, dtype=torch.bfloat16
    )
    with pytest.raises(ValueError, match=r"KV in .*float8_e4m3fn beside"):
        connect(relaxation, runner, SimpleNamespace(), 22, 1)
