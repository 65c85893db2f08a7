"""What the package asks of the host. The next SGLang release fails here, with one clear line."""

import inspect
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name

import pytest

from lvspec_sglang import patches
from lvspec_sglang.host import HOST_VERSION
from lvspec_sglang.miniworld import paths
from lvspec_sglang.refusals import OTHERS

# Every host function the package calls, with the parameters it relies on.
CALLED = {
    "sglang.srt.speculative.spec_info.SpeculativeAlgorithm.register": (
        "name", "supports_overlap", "validate_server_args", "spec_class",
    ),
    "sglang.srt.speculative.eagle_utils.eagle_prepare_for_verify": (
        "verify_input", "req_to_token_pool", "batch", "target_worker",
    ),
    "sglang.srt.speculative.spec_utils.GrammarTree.from_linear_chain": ("verify_ids_2d",),
    "sglang.srt.speculative.spec_utils.build_grammar_vocab_mask": (
        "reqs", "tree", "sampling_info", "device", "barrier",
    ),
    "sglang.srt.speculative.spec_utils.record_stream_for_v2_verify": (
        "batch", "verify_input", "fwd_stream",
    ),
    "sglang.srt.layers.logprob_processor.compute_spec_logprobs": (
        "batch", "logits_output", "predict", "chain_stride",
    ),
    "sglang.srt.layers.sampler.apply_custom_logit_processor": (
        "logits", "sampling_batch_info", "num_tokens_in_batch",
    ),
    "sglang.srt.layers.sampler.Sampler.forward": (
        "logits_output", "sampling_info", "return_logprob", "top_logprobs_nums",
        "token_ids_logprobs", "positions",
    ),
    "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.apply_logits_bias": ("logits",),
    "sglang.srt.managers.tp_worker.TpModelWorker.__init__": (
        "server_args", "gpu_id", "nccl_port", "is_draft_worker", "context_length",
    ),
    "sglang.srt.managers.tp_worker.TpModelWorker.alloc_memory_pool": (
        "memory_pool_config", "req_to_token_pool", "token_to_kv_pool_allocator",
    ),
    "sglang.srt.managers.tp_worker.TpModelWorker.init_cuda_graphs": ("capture_decode_cuda_graph",),
    "sglang.srt.managers.tp_worker.TpModelWorker.forward_batch_generation": (
        "batch", "forward_batch", "is_verify", "capture_hidden_mode",
    ),
    "sglang.srt.model_executor.model_runner.ModelRunner.forward": ("forward_batch",),
    "sglang.srt.model_executor.forward_context.forward_context": ("ctx", "forward_batch"),
    "sglang.srt.mem_cache.kv_index_translator.KVIndexTranslator.own_plan": ("forward_batch",),
    "sglang.srt.mem_cache.kv_loc_plan.KVLocPlan.bind": ("batch", "reader"),
    "sglang.srt.layers.attention.attention_registry.register_attention_backend": ("name",),
    "sglang.srt.layers.attention.torch_native_backend.TorchNativeAttnBackend"
    "._run_sdpa_forward_extend": (
        "query", "output", "k_cache", "v_cache", "req_to_token", "req_pool_indices", "seq_lens",
        "extend_prefix_lens", "extend_seq_lens", "encoder_lens", "scaling", "enable_gqa",
        "causal", "is_cross_attn", "sliding_window_size",
    ),
    "sglang.srt.layers.attention.flashinfer_backend.fast_prefill_plan": (
        "qo_indptr", "paged_kv_indptr", "paged_kv_indices", "paged_kv_last_page_len",
        "num_qo_heads", "num_kv_heads", "head_dim_qk", "page_size", "q_data_type",
        "kv_data_type", "fixed_split_size", "qo_indptr_host", "kv_indptr_host", "kv_lens_host",
        "max_q_len", "max_kv_len",
    ),
    "sglang.srt.layers.attention.flashinfer_backend.FlashInferAttnBackend"
    ".init_forward_metadata_out_graph": ("forward_batch", "in_capture"),
    "sglang.srt.layers.attention.flashinfer_backend.FlashInferAttnBackend.init_cuda_graph_state": (
        "max_bs", "max_num_tokens", "kv_indices_buf",
    ),
    "sglang.srt.layers.attention.base_attn_backend.AttentionBackend.shared_read_ends": ("fm",),
    "sglang.srt.mem_cache.memory_pool.KVWriteLoc.for_layer": ("swa_loc",),
    "sglang.srt.distributed.parallel_state.GroupCoordinator.all_reduce": ("input_",),
    "sglang.srt.distributed.parallel_state.GroupCoordinator.broadcast": ("input_", "src"),
    "sglang.srt.distributed.parallel_state.GroupCoordinator.broadcast_object": ("obj", "src"),
    "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool._init_kv_copy_and_warmup": ("self",),
    "sglang.srt.models.qwen2_5_vl.Qwen2_5_VLForConditionalGeneration.get_video_feature": ("items",),
    "sglang.srt.layers.radix_attention.RadixAttention.forward": ("q", "k", "v", "forward_batch"),
    "sglang.srt.models.qwen2.Qwen2Attention.forward": ("hidden_states",),
    "sglang.srt.model_executor.model_runner.ModelRunner.init_kv_index_translator": ("self",),
    "sglang.srt.model_executor.pool_configurator.DefaultPoolConfigurator._compute_cell_size": (
        "kvc", "num_layers",
    ),
    "sglang.srt.models.qwen2.Qwen2Model.forward": (
        "input_ids", "positions", "forward_batch", "input_embeds",
    ),
    "sglang.srt.utils.hf_transformers_utils.get_config": (
        "model", "trust_remote_code", "revision", "model_override_args",
    ),
    "sglang.srt.utils.hf_transformers_utils.get_tokenizer": (
        "tokenizer_name", "trust_remote_code", "tokenizer_revision",
    ),
}  # fmt: skip

# Attributes of host objects that are read or written.
FIELDS = {
    "sglang.srt.model_executor.cuda_graph_config.PhaseConfig": ("bs", "max_bs"),
    "sglang.srt.managers.utils.GenerationBatchResult": (
        "logits_output", "next_token_ids", "can_run_cuda_graph", "speculative_num_draft_tokens",
        "accept_lens", "new_seq_lens", "next_draft_input", "extra_keep_alive_refs",
    ),
    "sglang.srt.managers.schedule_batch.ReqKvInfo": (
        "req_pool_idx", "cache_protected_len", "kv_allocated_len",
    ),
    "sglang.srt.managers.schedule_batch.MultimodalInputs": (
        "mm_items", "mrope_positions", "mrope_position_delta",
    ),
    "sglang.srt.speculative.eagle_info.EagleVerifyInput": (
        "draft_token", "custom_mask", "positions", "draft_token_num", "prepared_out_cache_loc",
        "prepared_mrope_positions", "capture_hidden_mode",
    ),
    "sglang.srt.managers.overlap_utils.RelayPayload": (
        "bonus_tokens", "topk_p", "topk_index", "hidden_states", "dsa_topk_indices",
    ),
}  # fmt: skip


def test_the_installed_host_is_the_one_named() -> None:
    assert metadata.version("sglang") == HOST_VERSION
    pinned = metadata.requires("lvspec-sglang") or []
    assert f"sglang=={HOST_VERSION}" in pinned


def test_the_algorithm_answers_everything_the_host_may_ask() -> None:
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from lvspec_sglang.algorithm import LVSpecAlgorithm

    asked = {
        name
        for name, value in vars(SpeculativeAlgorithm).items()
        if callable(value) and not name.startswith("_")
    }
    missing = asked - set(dir(LVSpecAlgorithm))
    assert not missing, f"LVSpecAlgorithm does not answer {sorted(missing)}"


def test_the_worker_is_what_the_scheduler_expects() -> None:
    from sglang.srt.speculative.base_spec_worker import BaseSpecWorker

    from lvspec_sglang.worker import LVSpecWorker

    for name, method in inspect.getmembers(BaseSpecWorker, inspect.isfunction):
        ours, theirs = (
            inspect.signature(m).parameters for m in (getattr(LVSpecWorker, name), method)
        )
        if name != "__init__":
            assert list(ours) == list(theirs), f"LVSpecWorker.{name} takes other parameters"


@pytest.mark.parametrize("path", CALLED)
def test_a_called_function_takes_what_is_passed(path: str) -> None:
    parameters = inspect.signature(resolve_name(path)).parameters
    missing = set(CALLED[path]) - set(parameters)
    assert not missing, f"{path} no longer takes {sorted(missing)}"


def test_flashinfers_wrapper_takes_what_the_tests_executor_takes() -> None:
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper as Wrapper

    from tests.torch_paged import TorchPaged

    for name, places in (("plan", 9), ("forward_return_lse", 3)):
        ours, theirs = (inspect.signature(getattr(c, name)) for c in (TorchPaged, Wrapper))
        named = dict.fromkeys(list(ours.parameters)[places:])
        theirs.bind(*[None] * places, **named)


def test_flashinfers_planner_is_told_last_how_many_queries_each_entry_has() -> None:
    import flashinfer

    folder = Path(flashinfer.__file__).parent / "data" / "csrc"
    declared = (folder / "batch_prefill_jit_binding.cu").read_text()
    found = re.search(r"BatchPrefillWithKVCachePlan\((.*?)\)", declared, flags=re.DOTALL)
    assert found is not None
    arguments = [argument.split()[-1] for argument in found[1].split(",")]
    assert (len(arguments), arguments[-1]) == (20, "uniform_q_len")


@pytest.mark.parametrize("path", FIELDS)
def test_a_host_object_has_the_fields_used(path: str) -> None:
    missing = set(FIELDS[path]) - set(resolve_name(path).__dataclass_fields__)
    assert not missing, f"{path} no longer has {sorted(missing)}"


@pytest.mark.parametrize("patch", patches.ALL)
def test_a_patch_fits_the_host(patch: patches.Patch) -> None:
    assert patch.mismatch() is None
    assert patch.reason and patch.until


def test_what_is_not_given_is_at_the_default_that_is_not_refused() -> None:
    from sglang.srt.server_args import prepare_server_args

    args = prepare_server_args(["--model-path", str(paths().target)])
    assert {field: getattr(args, field) for field in OTHERS} == OTHERS


def test_a_patch_that_does_not_fit_says_so() -> None:
    wrong = patches.Patch("inspect.signature", ("self",), print, "REPLACE", "-", "-")
    absent = patches.Patch("inspect.nothing", (), print, "REPLACE", "-", "-")
    assert "was expected to take" in (wrong.mismatch() or "")
    assert "is not in this SGLang" in (absent.mismatch() or "")
    with pytest.raises(RuntimeError, match=r"does not fit this SGLang: inspect\.signature"):
        patches.apply((wrong,))


def test_a_host_module_that_lacks_another_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut_host.py").write_text("import lost_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    patch = patches.Patch("cut_host.serve", (), print, "REPLACE", "-", "-")
    assert "No module named 'lost_dependency'" in (patch.mismatch() or "")


def test_without_the_cpu_platform_and_without_lvspec_only_a_flag_is_added() -> None:
    script = """
from sglang.srt.plugins import load_plugins
from sglang.srt.plugins.hook_registry import HookRegistry
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
load_plugins()
assert SpeculativeAlgorithm.from_string("LVSPEC").name == "LVSPEC"
ours = [
    target for target, hooks in HookRegistry._hooks.items()
    for _, hook, _ in hooks if hook.__module__.startswith("lvspec_sglang")
]
flag = {f"sglang.srt.server_args.ServerArgs.{name}_cli_args" for name in ("add", "from")}
assert set(ours) == flag, ours
import sys
assert "prometheus_client" not in sys.modules, "the host's own figures are lost"
print("untouched")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300,
        env={**os.environ, "LVSPEC_CPU_PLATFORM": "0"},
    )  # fmt: skip
    assert "untouched" in done.stdout, done.stderr
