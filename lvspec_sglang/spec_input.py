"""A round's inputs in SGLang's shapes: the chain to verify, and what is relayed to the next one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sglang.srt.speculative.eagle_info import EagleVerifyInput
from sglang.srt.speculative.spec_info import SpecInput, SpecInputType

from lvspec_sglang.attention.chain_plan import Context


@dataclass
class ChainVerifyInput(EagleVerifyInput):
    """A causal chain, verified without a mask.

    Attributes:
        contexts: what of each request's context is known on the host.
    """

    contexts: Sequence[Context] = ()


class LVSpecDraftInput(SpecInput):
    """The last committed token of each request, not yet in KV.

    Attributes:
        bonus_tokens: ``[batch]`` int64.
        future_indices: rows the overlap scheduler relays the tokens through, or None.
    """

    # Read by the host's relay, which carries what other algorithms draft from.
    topk_p = topk_index = hidden_states = None

    def __init__(
        self, bonus_tokens: torch.Tensor, future_indices: torch.Tensor | None = None
    ) -> None:
        super().__init__(SpecInputType.EAGLE_DRAFT)
        self.bonus_tokens = bonus_tokens
        self.future_indices = future_indices

    def filter_batch(
        self, new_indices: torch.Tensor, new_indices_cpu: list[int] | None = None
    ) -> None:
        """Keep the requests ``new_indices``."""
        if self.future_indices is not None:
            self.future_indices = self.future_indices[new_indices]
        else:
            self.bonus_tokens = self.bonus_tokens[new_indices]

    def merge_batch(self, other: "LVSpecDraftInput") -> None:
        """Append the requests of ``other``."""
        if self.future_indices is not None:
            assert other.future_indices is not None
            self.future_indices = torch.cat([self.future_indices, other.future_indices])
        else:
            self.bonus_tokens = torch.cat([self.bonus_tokens, other.bonus_tokens])
