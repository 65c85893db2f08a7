"""Wrong use is refused with what was given, what is allowed and what to type."""

from types import SimpleNamespace
from typing import Any

import pytest

from lvspec_sglang import host, platform
from lvspec_sglang.algorithm import LVSpecAlgorithm, resolved_device
from lvspec_sglang.draft import check
from lvspec_sglang.pairing import check_pair, check_tokenizers
from lvspec_sglang.refusals import OTHERS, check_server_args

FINE: dict[str, Any] = {
    "dcp_size": 1, "attn_cp_size": 1, "enable_prefill_cp": False,
    "pp_size": 1, "attn_dp_size": 1, "enable_dp_attention": False, "enable_lora": None,
    "lora_paths": None, "enable_hierarchical_cache": False, "disaggregation_mode": "null",
    "speculative_use_rejection_sampling": False, "speculative_eagle_topk": None,
    "kv_cache_dtype": "auto", "page_size": 1, "enable_unified_memory": False,
    "enable_return_hidden_states": False, "enable_watermark": False, "use_ray": False,
    "speculative_num_steps": None, "speculative_num_draft_tokens": None,
    "speculative_draft_attention_backend": None, "attention_backend": "fa3",
    "speculative_draft_model_path": None,
    "prefill_attention_backend": None, "decode_attention_backend": None,
    "enable_lmcache": False, "enable_flexkv": False,
    "enable_hisparse": False, "enable_unified_cache_external_linker": False,
    "tokenizer_worker_num": 1, "radix_cache_backend": None,
    "enable_memory_saver": False, "enable_weights_cpu_backup": False,
    "enable_draft_weights_cpu_backup": False,
    "speculative_accept_threshold_single": 1.0, "speculative_accept_threshold_acc": 1.0,
    "speculative_adaptive": False, "speculative_token_map": None,
    "model_impl": "auto", "kv_canary": "none", "speculative_draft_kv_cache_dtype": None, **OTHERS,
}  # fmt: skip


def test_the_device_is_what_the_host_resolved() -> None:
    args = SimpleNamespace(device=None, _resolved_overrides=[("platform", {"device": "cuda"})])
    assert resolved_device(args) == "cuda"


def test_ordinary_arguments_are_fine() -> None:
    check_server_args(SimpleNamespace(**FINE))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("pp_size", 2, "--pp-size 2: use --tp-size"),
        ("attn_dp_size", 2, "--attn-dp-size 2"),
        ("enable_dp_attention", True, "--enable-dp-attention"),
        ("dcp_size", 2, "--dcp-size 2: leave it out"),
        ("enable_prefill_cp", True, "--enable-prefill-cp: leave it out"),
        ("enable_lora", True, "--enable-lora: merge"),
        ("lora_paths", ["a"], "--lora-paths"),
        ("enable_hierarchical_cache", True, "--enable-hierarchical-cache: leave it out"),
        ("disaggregation_mode", "decode", "--disaggregation-mode decode"),
        ("speculative_use_rejection_sampling", True, "--speculative-use-rejection-sampling"),
        ("speculative_eagle_topk", 4, "--speculative-eagle-topk 4"),
        ("kv_cache_dtype", "fp8_e4m3", "--kv-cache-dtype fp8_e4m3: use --kv-cache-dtype auto"),
        (
            "speculative_draft_attention_backend",
            "flashinfer",
            "--speculative-draft-attention-backend flashinfer: leave it out or use triton",
        ),
        ("attention_backend", "flashinfer", "flashinfer without a draft model: use --attention"),
        ("page_size", 64, "--page-size 64: use --page-size 1"),
        ("enable_unified_memory", True, "--enable-unified-memory"),
        ("enable_return_hidden_states", True, "--enable-return-hidden-states"),
        ("enable_watermark", True, "--enable-watermark"),
        ("use_ray", True, "--use-ray"),
        ("speculative_num_steps", 0, "--speculative-num-steps 0"),
        ("speculative_num_steps", 33, "--speculative-num-steps 33: LVSPEC drafts 1 to 32"),
        ("speculative_accept_threshold_single", 0.5, "threshold-single 0.5: leave it out"),
        ("speculative_accept_threshold_acc", 0.5, "set in --lvspec-config"),
        ("speculative_adaptive", True, "--speculative-adaptive: leave it out: draft_length"),
        ("speculative_token_map", "map.pt", "--speculative-token-map map.pt: leave it out"),
        ("model_impl", "transformers", "--model-impl transformers: leave it out"),
        ("kv_canary", "log", "--kv-canary log: leave it out"),
        ("enable_lmcache", True, "--enable-lmcache: leave it out"),
        ("tokenizer_worker_num", 2, "--tokenizer-worker-num 2: leave it out"),
        ("speculative_draft_kv_cache_dtype", "fp8_e5m2", "cache-dtype fp8_e5m2: leave it out"),
        ("speculative_ngram_capacity", 100, "--speculative-ngram-capacity 100: leave it out"),
        ("speculative_draft_window_size", 64, "another speculative algorithm's"),
    ],
)
def test_a_refused_argument_is_named_with_its_remedy(field: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_server_args(SimpleNamespace(**{**FINE, field: value}))


def test_a_server_that_takes_no_videos_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_RUST_SERVER", "1")
    with pytest.raises(ValueError, match="SGLANG_RUST_SERVER=1: unset it"):
        check_server_args(SimpleNamespace(**FINE))


def test_released_weights_of_a_draft_must_be_backed_up() -> None:
    released = {**FINE, "enable_memory_saver": True}
    check_server_args(SimpleNamespace(**released))
    released["speculative_draft_model_path"] = "draft"
    with pytest.raises(ValueError, match="add --enable-draft-weights-cpu-backup"):
        check_server_args(SimpleNamespace(**released))
    for backup in ("enable_weights_cpu_backup", "enable_draft_weights_cpu_backup"):
        check_server_args(SimpleNamespace(**{**released, backup: True}))


@pytest.mark.parametrize("field", ["attention", "prefill_attention", "decode_attention"])
def test_a_captured_plan_is_refused_on_flashinfer(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = {"speculative_draft_model_path": "draft"}
    flashinfer = SimpleNamespace(**{**FINE, **draft, f"{field}_backend": "flashinfer"})
    check_server_args(flashinfer)
    monkeypatch.setenv("SGLANG_ENABLE_METADATA_GLUE_GRAPH", "1")
    check_server_args(SimpleNamespace(**FINE))
    with pytest.raises(ValueError, match="GLUE_GRAPH=1 on FlashInfer: unset it or use --attention"):
        check_server_args(flashinfer)


@pytest.mark.parametrize(("tokens", "steps"), [(6, 5), (1, 1), (0, 1), (40, 32), (12, 11)])
def test_draft_tokens_alone_are_not_overwritten(tokens: int, steps: int) -> None:
    said = f"--speculative-num-draft-tokens {tokens}: write --speculative-num-steps {steps};"
    with pytest.raises(ValueError, match=said):
        check_server_args(SimpleNamespace(**{**FINE, "speculative_num_draft_tokens": tokens}))


@pytest.mark.parametrize("steps", [None, 10])
def test_as_many_draft_tokens_as_lvspec_verifies_are_fine(steps: int | None) -> None:
    given = {"speculative_num_steps": steps, "speculative_num_draft_tokens": 11}
    check_server_args(SimpleNamespace(**{**FINE, **given}))


def test_draft_tokens_must_fit_the_steps() -> None:
    with pytest.raises(ValueError, match="verifies 5 tokens"):
        check_server_args(
            SimpleNamespace(
                **{**FINE, "speculative_num_steps": 4, "speculative_num_draft_tokens": 9}
            )
        )


def config(family: str = "Qwen2_5_VLForConditionalGeneration", **fields: Any) -> SimpleNamespace:
    vision = SimpleNamespace(patch_size=14, spatial_merge_size=2, temporal_patch_size=2)
    return SimpleNamespace(architectures=[family], **{"vision_config": vision, **fields})


def test_a_pair_of_one_family_is_fine() -> None:
    check_pair(config(), config(), "T", "D")


@pytest.mark.parametrize(
    ("target", "draft", "said"),
    [
        (config(), config("Qwen2ForCausalLM", vision_config=None), "D is text-only"),
        (config("Qwen2ForCausalLM"), config(), "target T is a Qwen2ForCausalLM; LVSPEC supports"),
        (config(), config("Qwen2VLForConditionalGeneration"), "of the target's family"),
        (config(video_token_id=7), config(video_token_id=8), "video_token_id 8, the target T 7"),
        (
            config("LlavaQwenForCausalLM", image_grid_pinpoints=[[1, 1]]),
            config("LlavaQwenForCausalLM", image_grid_pinpoints=[[2, 2]]),
            "image_grid_pinpoints",
        ),
        (
            config(text_config=SimpleNamespace(use_sliding_window=True)),
            config(),
            "sliding-window",
        ),
    ],
)
def test_an_unfit_pair_is_refused(target: Any, draft: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_pair(target, draft, "T", "D")


def test_another_tokenizer_is_refused_and_names_a_token() -> None:
    ours, theirs = (SimpleNamespace(get_vocab=lambda v=v: v) for v in ({"a": 1}, {"a": 2}))
    check_tokenizers(ours, ours, "T", "D")
    with pytest.raises(ValueError, match="'a' is 2 there and 1 here"):
        check_tokenizers(ours, theirs, "T", "D")


def test_another_host_version_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.version_problem() is None
    monkeypatch.setattr(host, "version", lambda name: "0.5.99")
    assert "pip install sglang==0.5.23" in (host.version_problem() or "")


def test_the_platform_switch_takes_0_or_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(platform.FORCE_ENV, "0")
    assert not platform.applies()
    monkeypatch.setenv(platform.FORCE_ENV, "1")
    assert platform.activate() == platform.PLATFORM_CLASS
    monkeypatch.setenv(platform.FORCE_ENV, "yes")
    with pytest.raises(ValueError, match="use 1 to force"):
        platform.applies()


@pytest.mark.parametrize(
    ("device", "target", "asked", "draft"),
    [
        ("cuda", "flashinfer", None, "triton"),
        ("cuda", "flashinfer", "fa3", "fa3"),
        ("cuda", "fa3", None, None),
        ("cpu", "torch_native", None, None),
    ],
)
def test_the_draft_never_decodes_on_flashinfer(
    device: str, target: str, asked: str | None, draft: str | None
) -> None:
    args = SimpleNamespace(
        device=device, attention_backend=target, prefill_attention_backend=None,
        decode_attention_backend=None, speculative_draft_attention_backend=asked,
        speculative_num_steps=None, max_running_requests=4,
    )  # fmt: skip
    LVSpecAlgorithm.handle_server_args(object.__new__(LVSpecAlgorithm), args)
    assert args.speculative_draft_attention_backend == draft
    assert args.speculative_num_draft_tokens == 11


def test_the_draft_kv_check_is_refused_where_the_host_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(check.CHECK_ENV, "1")
    overlapping = SimpleNamespace(disable_overlap_schedule=False)
    monkeypatch.setattr(check, "get_schedule", lambda: overlapping)
    with pytest.raises(ValueError, match=r"_CHECK_DRAFT_KV=1 .* add --disable-overlap-schedule"):
        check.DraftKVCheck.from_env(SimpleNamespace(owns_kv=True))
    assert check.DraftKVCheck.from_env(SimpleNamespace(owns_kv=False)) is None
    monkeypatch.delenv(check.CHECK_ENV)
    assert check.DraftKVCheck.from_env(SimpleNamespace(owns_kv=True)) is None
