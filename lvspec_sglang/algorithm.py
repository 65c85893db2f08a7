"""LVSPEC as SGLang's scheduler knows an algorithm."""

from typing import Any

from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.speculative.spec_registry import CustomSpecAlgo

DEFAULT_STEPS = 10
DEFAULT_RUNNING_REQUESTS = 48


class LVSpecAlgorithm(CustomSpecAlgo):
    """A chain-drafting algorithm with a draft model of its own.

    It answers ``is_standalone``, so that the host budgets the draft's KV, captures chain-shaped
    verify graphs and asks for no hidden states.
    """

    def is_standalone(self) -> bool:
        return True

    def supports_grammar_overlap(self) -> bool:
        return True

    def need_topk(self) -> bool:
        return False

    def carries_draft_hidden_states(self) -> bool:
        return False

    def get_platform_worker_cls(self) -> type | None:
        return None

    create_future_map = SpeculativeAlgorithm.create_future_map

    def handle_server_args(self, server_args: Any) -> None:
        """Settle the arguments the host leaves to the algorithm."""
        steps = server_args.speculative_num_steps or DEFAULT_STEPS
        server_args.speculative_num_steps = steps
        server_args.speculative_num_draft_tokens = steps + 1
        server_args.speculative_eagle_topk = 1
        server_args.enable_mixed_chunk = False
        if server_args.max_running_requests is None:
            server_args.max_running_requests = DEFAULT_RUNNING_REQUESTS
        if server_args.device == "cpu":
            server_args.disable_overlap_schedule = True
