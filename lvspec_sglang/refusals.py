"""Server arguments LVSPEC cannot work with, each with what to type instead."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lvspec_sglang.verify.rule import DEFAULT_STEPS, MAX_STEPS


class Refusal(NamedTuple):
    """``given`` names the offending argument, or is None where it is fine."""

    given: Callable[[Any], str | None]
    remedy: str


def _flag(field: str, fine: tuple[Any, ...]) -> Callable[[Any], str | None]:
    option = "--" + field.replace("_", "-")

    def given(args: Any) -> str | None:
        value = getattr(args, field)
        if value in fine or (isinstance(value, (list, dict)) and not value):
            return None
        return option if value is True else f"{option} {value}"

    return given


def _glued_flashinfer(args: Any) -> str | None:
    from sglang.srt.environ import envs

    backends = (
        args.attention_backend, args.prefill_attention_backend, args.decode_attention_backend,
    )  # fmt: skip
    if "flashinfer" in backends and envs.SGLANG_ENABLE_METADATA_GLUE_GRAPH.get():
        return "SGLANG_ENABLE_METADATA_GLUE_GRAPH=1 on FlashInfer"
    return None


def _draft_without_backup(args: Any) -> str | None:
    kept = args.enable_weights_cpu_backup or args.enable_draft_weights_cpu_backup
    if args.enable_memory_saver and args.speculative_draft_model_path and not kept:
        return "--enable-memory-saver alone"
    return None


def _rust_server(args: Any) -> str | None:
    from sglang.srt.environ import envs

    return "SGLANG_RUST_SERVER=1" if envs.SGLANG_RUST_SERVER.get() else None


WHOLE_KV = "auto", "bf16", "bfloat16"

# Options of the host's other speculative algorithms, at their defaults.
OTHERS: dict[str, Any] = {
    "speculative_adaptive_config": None,
    "speculative_dflash_block_size": None,
    "speculative_dspark_block_size": None,
    "speculative_dspark_sps_table_path": None,
    "speculative_dspark_confidence_sts_path": None,
    "speculative_dspark_align_verify_tokens_to_graph_tier": False,
    "speculative_domino_candidate_pool_size": 2048,
    "speculative_draft_window_size": None,
    "speculative_draft_sink_size": None,
    "speculative_ngram_min_bfs_breadth": 1,
    "speculative_ngram_max_bfs_breadth": 10,
    "speculative_ngram_match_type": "BFS",
    "speculative_ngram_max_trie_depth": 18,
    "speculative_ngram_capacity": 10_000_000,
    "speculative_ngram_external_corpus_path": None,
    "speculative_ngram_external_sam_budget": 0,
    "speculative_ngram_external_corpus_max_tokens": 10_000_000,
}

REFUSALS = (
    Refusal(_flag("pp_size", (1,)), "use --tp-size instead"),
    Refusal(_flag("attn_dp_size", (None, 0, 1)), "use --dp-size instead"),
    Refusal(_flag("enable_dp_attention", (False,)), "leave it out"),
    *(
        Refusal(_flag(field, fine), "leave it out: each rank must hold whole contexts")
        for field, fine in (
            ("dcp_size", (1,)),
            ("attn_cp_size", (None, 1)),
            ("enable_prefill_cp", (False,)),
        )
    ),
    Refusal(_flag("enable_lora", (None, False)), "merge the adapter first"),
    Refusal(_flag("lora_paths", (None,)), "merge the adapters first"),
    *(
        Refusal(
            _flag(field, (None, False)),
            "leave it out: it moves KV behind the draft's back",
        )
        for field in (
            "enable_hierarchical_cache",
            "enable_lmcache",
            "enable_flexkv",
            "enable_hisparse",
            "enable_unified_cache_external_linker",
        )
    ),
    Refusal(
        _flag("disaggregation_mode", ("null",)),
        "serve prefill and decode together",
    ),
    Refusal(
        _flag("speculative_use_rejection_sampling", (False,)),
        "leave it out: sampled answers already keep the target's distribution",
    ),
    Refusal(
        _flag("speculative_eagle_topk", (None, 1)),
        "leave it out: LVSPEC drafts a chain",
    ),
    *(
        Refusal(
            _flag(field, (1.0,)),
            "leave it out: how loosely tokens are accepted is set in --lvspec-config",
        )
        for field in ("speculative_accept_threshold_single", "speculative_accept_threshold_acc")
    ),
    Refusal(
        _flag("speculative_adaptive", (False,)),
        "leave it out: draft_length in --lvspec-config chooses by measured speed how much to draft",
    ),
    Refusal(
        _flag("speculative_token_map", (None,)),
        "leave it out: the draft proposes from its whole vocabulary",
    ),
    *(
        Refusal(
            _flag(field, (default,)),
            "leave it out: it is another speculative algorithm's",
        )
        for field, default in OTHERS.items()
    ),
    Refusal(
        _flag("kv_cache_dtype", WHOLE_KV),
        "use --kv-cache-dtype auto",
    ),
    Refusal(
        _flag("speculative_draft_kv_cache_dtype", (None, *WHOLE_KV)),
        "leave it out",
    ),
    Refusal(
        lambda args: (
            "--speculative-draft-attention-backend flashinfer"
            if args.speculative_draft_attention_backend == "flashinfer"
            else None
        ),
        "leave it out or use triton: FlashInfer plans every drafted token on the host, in memory "
        "that the device is still reading for the one before",
    ),
    Refusal(
        lambda args: (
            "--attention-backend flashinfer without a draft model"
            if not args.speculative_draft_model_path
            and "flashinfer" in (args.attention_backend, args.decode_attention_backend)
            else None
        ),
        "use --attention-backend triton or fa3, or name a draft with "
        "--speculative-draft-model-path PATH",
    ),
    Refusal(
        _glued_flashinfer,
        "unset it or use --attention-backend triton or fa3: FlashInfer's verify forwards are "
        "planned on the host every round, and a captured plan stays that of the first",
    ),
    Refusal(
        _draft_without_backup,
        "add --enable-draft-weights-cpu-backup: new weights are loaded into the target, and the "
        "draft's would be lost when memory is released",
    ),
    Refusal(_flag("page_size", (None, 1)), "use --page-size 1"),
    Refusal(_flag("enable_unified_memory", (False,)), "leave it out"),
    Refusal(
        _flag("enable_return_hidden_states", (False,)),
        "leave it out, and --return-hidden-states-mode",
    ),
    Refusal(
        _flag("model_impl", ("auto", "sglang")),
        "leave it out: the draft's vision tower is run through SGLang's own models",
    ),
    Refusal(
        _flag("kv_canary", ("none",)),
        "leave it out: it takes a draft's KV for shifted by a token; LVSPEC_CHECK_DRAFT_KV=1 "
        "checks it as it is",
    ),
    Refusal(_flag("enable_watermark", (False,)), "leave it out"),
    Refusal(_flag("radix_cache_backend", (None,)), "leave it out"),
    Refusal(
        _flag("tokenizer_worker_num", (1,)),
        "leave it out: the host's further HTTP workers load no plugins",
    ),
    Refusal(_flag("use_ray", (False,)), "leave it out: Ray actors load no plugins"),
    Refusal(_rust_server, "unset it: that server takes no videos and loads no plugins"),
)


def check_server_args(args: Any) -> None:
    """Raise for the first argument LVSPEC cannot work with.

    Args:
        args: SGLang's server arguments, or its stand-in while they are being resolved.

    Raises:
        ValueError: naming the argument given and the remedy.
    """
    for refusal in REFUSALS:
        given = refusal.given(args)
        if given is not None:
            raise ValueError(f"LVSPEC does not work with {given}: {refusal.remedy}.")
    steps = args.speculative_num_steps
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise ValueError(
            f"--speculative-num-steps {steps}: LVSPEC drafts 1 to {MAX_STEPS} tokens a round; "
            f"leave it out for the default of {DEFAULT_STEPS}."
        )
    tokens = args.speculative_num_draft_tokens
    if tokens is None or tokens == (steps or DEFAULT_STEPS) + 1:
        return
    if steps is not None:
        raise ValueError(
            f"--speculative-num-draft-tokens {tokens} with --speculative-num-steps {steps}: "
            f"leave the first one out; LVSPEC verifies {steps + 1} tokens a round then."
        )
    wanted = min(max(tokens - 1, 1), MAX_STEPS)
    raise ValueError(
        f"--speculative-num-draft-tokens {tokens}: write --speculative-num-steps {wanted}; LVSPEC "
        "verifies the drafted tokens and the one before them."
    )
