"""The target's own tokens are chosen as a decode step of the host chooses them."""

import pytest
import torch
from sglang.srt.layers.sampler import apply_custom_logit_processor
from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor
from sglang.srt.sampling.sampling_batch_info import ProcessorEntry, SamplingBatchInfo

from lvspec_sglang.target_tokens import choose_target_tokens


class PreferTwo(CustomLogitProcessor):
    def __call__(self, logits: torch.Tensor, custom_param_list: object = None) -> torch.Tensor:
        logits[:, 2] += 10.0
        return logits


def info() -> SamplingBatchInfo:
    """One greedy request whose token 2 is penalised and then preferred."""
    return SamplingBatchInfo(
        temperatures=torch.ones(1, 1), top_ps=torch.ones(1), min_ps=torch.zeros(1),
        top_ks=torch.ones(1, dtype=torch.int32), is_all_greedy=True, is_any_greedy=True,
        need_top_p_sampling=False, need_top_k_sampling=False, need_min_p_sampling=False,
        vocab_size=4, device="cpu", acc_scaling_penalties=torch.tensor([[1.0, 1.0, 2.0, 1.0]]),
        has_custom_logit_processor=True, custom_params=[{}],
        custom_logit_processor={1: ProcessorEntry(PreferTwo(), [0], torch.tensor([0]))},
    )  # fmt: skip


@pytest.mark.parametrize("width", [1, 3])
def test_a_custom_processor_sees_penalised_logits_as_in_a_decode_step(width: int) -> None:
    given = torch.tensor([[0.0, 8.0, 1.0, 0.0]])
    decoded = given.clone()
    info().apply_logits_bias(decoded)
    apply_custom_logit_processor(decoded, info())
    logits = given.repeat(width, 1)
    chosen = choose_target_tokens(None, logits, info(), torch.arange(width), width)
    torch.testing.assert_close(logits, decoded.expand(width, -1))
    assert chosen.tolist() == [[2] * width]
