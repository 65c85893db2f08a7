"""Each patch: the failure without it, the success with it."""

from pathlib import Path

import pytest
import torch
from sglang.srt.mem_cache import allocation
from sglang.srt.utils import video_decoder as host_decoder

from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.patches import pin_memory, slot_writer, video_decoder

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
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: object, indices: list[int]) -> torch.Tensor:
        raise RuntimeError("decoder: invalid data")

    with pytest.raises(RuntimeError):
        damaged(None, [0])
    with pytest.raises(ValueError, match="Could not decode video: decoder: invalid data"):
        video_decoder.sample_frames(damaged, None, [0])
