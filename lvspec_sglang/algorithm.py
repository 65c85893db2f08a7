"""LVSPEC as SGLang's argument resolution and scheduler know an algorithm."""

import json
from typing import Any, NamedTuple

from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.speculative.spec_registry import CustomSpecAlgo

from lvspec_sglang import patches, platform
from lvspec_sglang.config_json import server_config
from lvspec_sglang.host import version_problem
from lvspec_sglang.refusals import check_server_args
from lvspec_sglang.verify.rule import DEFAULT_STEPS

NAME = "LVSPEC"
DEFAULT_RUNNING_REQUESTS = 48


class Checkpoint(NamedTuple):
    """A model's path or name, and its revision where it has one."""

    path: str
    revision: str | None


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
        elif server_args.speculative_draft_attention_backend is None and "flashinfer" in (
            server_args.attention_backend,
            server_args.prefill_attention_backend,
            server_args.decode_attention_backend,
        ):
            server_args.speculative_draft_attention_backend = "triton"


def validate_server_args(server_args: Any) -> None:
    """Refuse, in the launching process, what cannot work; then patch that process.

    Raises:
        RuntimeError: another SGLang release, or a host function a patch does not fit.
        ValueError: an argument, a configuration or a pair of checkpoints that LVSPEC cannot work
            with.
    """
    from sglang.srt.utils.hf_transformers_utils import (
        get_config,
        get_hf_text_config,
        get_tokenizer,
    )

    from lvspec_sglang.pairing import check_pair, check_tokenizers
    from lvspec_sglang.relevance.measured import check_layers

    problem = version_problem()
    if problem is not None:
        raise RuntimeError(problem)
    check_server_args(server_args)
    trust = server_args.trust_remote_code
    overrides = json.loads(server_args.json_model_override_args)
    target = Checkpoint(server_args.model_path, server_args.revision)
    draft = target
    if server_args.speculative_draft_model_path is not None:
        draft = Checkpoint(
            server_args.speculative_draft_model_path, server_args.speculative_draft_model_revision
        )
    target_config, draft_config = (
        get_config(path, trust, revision, overrides) for path, revision in (target, draft)
    )
    check_pair(target_config, draft_config, target.path, draft.path)
    count = get_hf_text_config(target_config).num_hidden_layers
    check_layers(server_config(), target_config, count)
    if not server_args.skip_tokenizer_init:
        words = target._replace(path=server_args.tokenizer_path or target.path)
        ours, theirs = (
            get_tokenizer(path, trust_remote_code=trust, tokenizer_revision=revision)
            for path, revision in (words, draft)
        )
        check_tokenizers(ours, theirs, target.path, draft.path)
    patches.apply((*patches.LVSPEC, *(patches.CPU_PLATFORM if platform.applies() else ())))


def resolved_device(server_args: Any) -> str:
    """``cuda`` or ``cpu``: the arguments themselves hold only what the user typed."""
    from sglang.srt.arg_groups.overrides import resolving_view

    return str(resolving_view(server_args).device)


def create_worker(server_args: Any) -> type:
    """Patch the scheduler's process and return the worker class for it."""
    from lvspec_sglang.worker import LVSpecWorker

    patches.apply(patches.LVSPEC)
    if resolved_device(server_args) == "cuda":
        from lvspec_sglang.attention import flashinfer

        flashinfer.register()
    return LVSpecWorker
