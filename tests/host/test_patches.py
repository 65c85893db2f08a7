"""Each patch: the failure without it, the success with it."""

import argparse
import functools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decord
import msgspec
import pytest
import torch
from prometheus_client import REGISTRY
from sglang.srt.layers.attention import graph_variants
from sglang.srt.managers.schedule_batch import ReqKvInfo
from sglang.srt.managers.scheduler_components.internal_state import (
    SchedulerInternalStateController,
)
from sglang.srt.managers.tokenizer_manager import TokenizerManager
from sglang.srt.mem_cache import allocation
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.model_executor.runner import decode_cuda_graph_runner
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs
from sglang.srt.session.streaming_session import SessionSlot, StreamingSession
from sglang.srt.speculative import spec_info
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.utils import video_decoder as host_decoder

from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.config_json import CONFIG_ENV
from lvspec_sglang.metrics import INFO_KEY
from lvspec_sglang.patches import (
    config_flag,
    encode_count,
    meta_info,
    pin_memory,
    request_policy,
    server_info,
    session_tail,
    slot_writer,
    verify_graph,
    video_decoder,
)

pytestmark = pytest.mark.skipif(
    torch.accelerator.is_available(), reason="the failures mended here are those of a CPU machine"
)


def unpatched(function: object) -> object:
    """The host's own function, whether or not the hook registry has wrapped it."""
    return getattr(function, "__wrapped__", function)


def test_pinning_raises_without_the_patch_and_not_with_it() -> None:
    frames = torch.zeros(4)
    with pytest.raises(RuntimeError):
        torch.Tensor.pin_memory(frames)
    assert pin_memory.stay_pageable(frames) is frames


def test_slots_cannot_be_written_without_the_patch_and_can_with_it() -> None:
    rows, starts, ends = (torch.tensor(values) for values in ([2, 0], [1, 0], [3, 1]))
    table = torch.zeros(3, 4, dtype=torch.int32)
    slots = torch.tensor([7, 8, 9])
    with pytest.raises(Exception, match="active driver"):
        allocation.assign_req_to_token_pool_func(rows, table, starts, ends, slots, 2)
    slot_writer.assign_req_to_token_pool(rows, table, starts, ends, slots, 2)
    assert table.tolist() == [[9, 0, 0, 0], [0, 0, 0, 0], [0, 7, 8, 0]]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", moving_square(48, seed=1))


@pytest.mark.skipif(video_decoder.torchcodec_works(), reason="FFmpeg is installed")
def test_a_video_opens_only_with_the_patch_where_ffmpeg_is_missing(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_decoder, "_BACKEND", "torchcodec")
    construct = host_decoder.VideoDecoderWrapper.__init__
    with pytest.raises(RuntimeError, match="libtorchcodec"):
        host_decoder.VideoDecoderWrapper(str(clip))
    opened = object.__new__(host_decoder.VideoDecoderWrapper)
    video_decoder.open_decoder(construct, opened, str(clip))
    assert len(opened) == 48


def test_a_damaged_video_is_a_value_error_only_with_the_patch(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_decoder, "_BACKEND", "decord")
    whole = clip.read_bytes()
    begin, end = whole.find(b"mdat") + 4, whole.find(b"moov") - 4
    gap = (end - begin) // 2
    clip.write_bytes(whole[: begin + gap] + bytes(end - begin - gap) + whole[end:])
    opened = host_decoder.VideoDecoderWrapper(str(clip))
    sample = unpatched(host_decoder.VideoDecoderWrapper.get_frames_as_tensor)
    with pytest.raises(decord.DECORDError):
        sample(opened, [0, 24, 47])
    with pytest.raises(ValueError, match="Could not decode video"):
        video_decoder.sample_frames(sample, opened, [0, 24, 47])


def test_a_misspelt_key_passes_the_host_and_not_the_patch() -> None:
    params = SamplingParams(custom_params={"lvspec": {"losse_ratio": 0.5}})
    params.verify(100)
    with pytest.raises(ValueError, match="unknown lvspec key 'losse_ratio'"):
        request_policy.check_relaxation(None, params, 100)
    request_policy.check_relaxation(None, SamplingParams(), 100)


def test_custom_params_that_are_no_object_end_the_scheduler_without_the_patch() -> None:
    params = SamplingParams(custom_params=[1])
    params.verify(100)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams)
    with pytest.raises(ValueError, match=r"custom_params \[1\]: a JSON object"):
        request_policy.check_relaxation(None, params, 100)


def test_entries_become_counts_only_with_the_patch() -> None:
    update = unpatched(TokenizerManager.update_request_meta_info)
    info = {INFO_KEY: [[0, 3]]}

    def state() -> SimpleNamespace:
        return SimpleNamespace(customized_info_accumulated={}, customized_info_reported_keys=set())

    raw: dict[str, Any] = {}
    update(TokenizerManager, raw, state(), info, 0, None)
    assert raw == {INFO_KEY: [0, 3]}
    summary: dict[str, Any] = {}
    meta_info.update_meta_info(update, TokenizerManager, summary, state(), info, 0, None)
    assert summary == {"lvspec": {"match": 1, "loose": 0, "shift": 0, "target": 1, "bonus": 0}}


def test_the_flag_is_unknown_without_the_patch_and_exported_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CONFIG_ENV, "before")
    given = ["--lvspec-config", "{}"]
    plain = argparse.ArgumentParser(exit_on_error=False)
    plain.add_argument("--speculative-algorithm")
    assert plain.parse_known_args(given)[1] == given
    config_flag.add_flag(None, plain)
    config_flag.export_flag(None, ServerArgs, plain.parse_args([]))
    assert os.environ[CONFIG_ENV] == "before"
    asked = ["--speculative-algorithm", "lvspec"]
    config_flag.export_flag(None, ServerArgs, plain.parse_args([*given, *asked]))
    assert os.environ[CONFIG_ENV] == "{}"
    assert not caplog.messages


@pytest.mark.parametrize("asked", [[], ["--speculative-algorithm", "NGRAM"]])
def test_a_flag_that_nobody_reads_is_told_of_once(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CONFIG_ENV, "before")
    parser = argparse.ArgumentParser()
    unpatched(ServerArgs.add_cli_args)(parser)
    config_flag.add_flag(None, parser)
    arguments = parser.parse_args(["--model-path", "a", "--lvspec-config", "{}", *asked])
    config_flag.export_flag(None, ServerArgs, arguments)
    assert caplog.messages == [
        "--lvspec-config does nothing without --speculative-algorithm LVSPEC"
    ]


def test_an_encoded_video_is_counted_only_with_the_patch() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("lvspec_video_encodes_total") or 0.0

    before, features = counted(), torch.zeros(3, 2)
    assert encode_count.count_videos(features, None, ["one", "two"]) is features
    assert counted() == before + 2


def test_a_verify_graph_is_captured_with_a_mask_without_the_patch_and_not_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = SimpleNamespace(
        speculative_num_steps=3, speculative_eagle_topk=1, speculative_num_draft_tokens=4
    )
    monkeypatch.setattr(spec_info, "get_spec_config", lambda: shape)
    monkeypatch.setattr(decode_cuda_graph_runner, "get_spec", lambda: shape)
    algorithm = SpeculativeAlgorithm.from_string("STANDALONE")
    mask = torch.ones(8, dtype=torch.bool)
    runner = SimpleNamespace(
        model_runner=SimpleNamespace(
            spec_algorithm=algorithm, is_draft_worker=False, dtype=torch.float32, device="cpu",
            model_config=SimpleNamespace(hidden_size=2),
        ),
        buffers=SimpleNamespace(custom_mask=mask),
        speculative_num_steps=3,
        speculative_num_draft_tokens=4,
    )  # fmt: skip
    captured = unpatched(decode_cuda_graph_runner.DecodeCudaGraphRunner.get_spec_info)
    dummy = unpatched(spec_info.create_dummy_verify_input)
    for made in (captured(runner, 4), dummy(algorithm, mask, 4, False)):
        assert made.custom_mask is mask
        assert verify_graph.without_mask(made).custom_mask is None
    assert verify_graph.without_mask(None) is None


def test_a_backend_cannot_name_graphs_without_the_patch_and_can_with_it() -> None:
    named = object()
    runner = SimpleNamespace(
        model_config=SimpleNamespace(hf_text_config=None), device="cpu",
        spec_algorithm=SpeculativeAlgorithm.from_string("STANDALONE"), is_draft_worker=False,
        attn_backend=SimpleNamespace(verify_variants=named),
    )  # fmt: skip
    host = unpatched(graph_variants.create_dsv41_candidate_graph_variants)
    assert host(runner, ForwardMode.TARGET_VERIFY, 4) is None
    assert verify_graph.variants(None, runner, ForwardMode.TARGET_VERIFY, 4) is named
    assert verify_graph.variants(None, runner, ForwardMode.DECODE, 1) is None
    assert verify_graph.variants("its own", runner, ForwardMode.TARGET_VERIFY, 4) == "its own"


def test_the_internal_state_tells_lvspecs_figures_only_with_the_patch() -> None:
    add = unpatched(SchedulerInternalStateController._add_speculative)
    scheduler = SimpleNamespace(
        spec_algorithm=SimpleNamespace(is_none=lambda: False, is_dspark=lambda: False),
        draft_worker=SimpleNamespace(figures=lambda: {"lvspec_threshold": 0.5}),
        metrics_reporter=SimpleNamespace(
            spec_total_num_forward_ct=0, spec_total_num_accept_tokens=0
        ),
    )
    controller = SchedulerInternalStateController(scheduler, record_step_time=False)
    state: dict[str, Any] = {}
    add(controller, state)
    assert "lvspec" not in state
    server_info.add_figures(None, controller, state)
    assert state["lvspec"] == {"lvspec_threshold": 0.5}


def test_a_session_keeps_the_kv_of_a_token_never_fed_only_without_the_patch() -> None:
    """A turn of 16 tokens answered with 4; a round had reserved 22 slots more."""
    committed = []
    keep = unpatched(StreamingSession.try_cache_finished_req)
    for cache_finished in (keep, functools.partial(session_tail.keep_computed, keep)):
        kv = ReqKvInfo(req_pool_idx=1, kv_allocated_len=42, kv_committed_len=22)
        session = SimpleNamespace(streaming=True, session_id="s", finish_req=lambda req: None)
        req = SimpleNamespace(
            session=session, kv=kv, finished_reason=None, finished_len=4, detach_kv=lambda: None,
            origin_input_ids=list(range(16)), output_ids=list(range(6)), swa_branching_seqlen=None,
        )  # fmt: skip
        streaming = object.__new__(StreamingSession)
        streaming.cache = SimpleNamespace(page_size=1, free_kv_row=lambda kv, parts: None)
        streaming.slots = {"s": SessionSlot(kv=kv)}
        assert cache_finished(streaming, req)
        committed.append(kv.kv_committed_len)
    assert committed == [20, 19]
