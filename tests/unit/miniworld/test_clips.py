"""Clips: a file decodes to what training renders, within the codec's noise."""

from pathlib import Path

import numpy as np
import pytest

from lvspec_sglang.miniworld.clips import read_frames, write_clip
from lvspec_sglang.miniworld.evaluate import HeldOut
from lvspec_sglang.miniworld.render import FILE_SCALE, HEIGHT, WIDTH, render
from lvspec_sglang.miniworld.scene import FPS, FRAMES, HELD_OUT, SAMPLED, make_scene


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    return folder / write_clip(5, folder)["video"]


def test_file_has_the_promised_shape(clip: Path) -> None:
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(clip))
    assert len(reader) == FRAMES >= 32
    assert reader.get_avg_fps() == pytest.approx(FPS)
    assert reader[0].shape == (HEIGHT * FILE_SCALE, WIDTH * FILE_SCALE, 3)


def test_decoded_frames_are_the_rendered_ones(clip: Path) -> None:
    pytest.importorskip("decord")
    difference = read_frames(clip).astype(int) - render(make_scene(5), SAMPLED).astype(int)
    assert abs(difference).mean() < 2.5
    assert np.percentile(abs(difference), 99) < 16


def test_rendering_is_deterministic() -> None:
    assert np.array_equal(render(make_scene(9), SAMPLED), render(make_scene(9), SAMPLED))


def test_conditions_take_the_video_away() -> None:
    pytest.importorskip("decord")
    held_out = HeldOut.make(2)
    assert held_out.truth[0]["seed"] == HELD_OUT
    assert held_out.under("true").equal(held_out.pixels)
    assert held_out.under("swapped")[0].equal(held_out.pixels[1])
    assert held_out.under("blank").unique().numel() == 1
    shuffled = held_out.under("shuffled")
    assert not shuffled.equal(held_out.pixels)
    assert shuffled.sum() == held_out.pixels.sum()
    with pytest.raises(ValueError, match="use one of true, shuffled"):
        held_out.under("upside down")
