"""How a verify forward attends, which is also what its captured graphs are keyed by.

A captured graph runs what was captured, so each way to attend needs one of its own: ``plain``,
``scored`` (the scorer is told what it reads) and ``shared`` (requests on one video read it
together; scored too). The label is chosen on the host when a batch is known.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sglang.srt.model_executor.runner_utils.capture_mode import (
    get_capture_attention_variant,
    get_is_capture_mode,
)

from lvspec_sglang.attention.chain_plan import Context
from lvspec_sglang.relevance.base import Scorer

PLAIN, SCORED, SHARED = "plain", "scored", "shared"


class GraphVariants:
    """The labels of a target's verify graphs, in the shape SGLang's graph runner asks for."""

    def __init__(
        self, scorer: Scorer, shares: Callable[[Sequence[Context]], bool] | None = None
    ) -> None:
        """``shares`` says whether a batch reads videos together; None where nothing can."""
        self.scorer = scorer
        self.shares = shares
        scored = (SCORED,) if scorer.reads != "nothing" else ()
        shared = (SHARED,) if shares is not None else ()
        # The largest first: it sizes the memory all graphs share.
        self.capture_labels = (*shared, *scored, PLAIN)

    def select(self, forward_batch: Any) -> str:
        """The graph for ``forward_batch``, whose ``spec_info`` is a ``ChainVerifyInput``."""
        if self.shares is not None and self.shares(forward_batch.spec_info.contexts):
            return SHARED
        listening = self.scorer.listening and SCORED in self.capture_labels
        return SCORED if listening else PLAIN


def is_scored(scorer: Scorer) -> bool:
    """Whether the verify forward under way, or the one being captured, is to be scored."""
    if get_is_capture_mode():
        return get_capture_attention_variant() in (SCORED, SHARED)
    return scorer.listening
