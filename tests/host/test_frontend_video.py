"""``sgl.video``: what the host's frontend does with a video, and what the patched one does."""

import base64
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.chat_template import get_chat_template
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglVideo

from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.patches import frontend_video


@pytest.fixture
def program() -> Any:
    """The parts of a running program that the functions touch."""
    template = get_chat_template("qwen2-vl")
    return SimpleNamespace(text_="", images_=[], cur_images=[], chat_template=template)


@pytest.fixture
def video(tmp_path: Path) -> SglVideo:
    clip = write_clip(tmp_path / "clip.mp4", moving_square(40, seed=1, height=114))
    return SglVideo(str(clip), 12)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is not None, reason="OpenCV is installed")
def test_a_video_cannot_be_encoded_without_the_patch(program: Any, video: SglVideo) -> None:
    add = StreamExecutor._execute_video
    with pytest.raises(ModuleNotFoundError, match="cv2"):
        getattr(add, "__wrapped__", add)(program, video)


def test_its_frames_go_out_as_a_video_with_the_patch(program: Any, video: SglVideo) -> None:
    frontend_video.add_video(program, video)
    frontend_video.add_video(program, video)
    assert program.text_ == "<|vision_start|><|video_pad|><|vision_end|>" * 2
    data: dict[str, Any] = {"text": program.text_}
    frontend_video.send_media(RuntimeEndpoint._add_images, RuntimeEndpoint, program, data)
    assert list(data) == ["text", "video_data"] and len(data["video_data"]) == 2
    choices: dict[str, Any] = {"text": ["yes", "no", "perhaps"]}
    frontend_video.send_media(RuntimeEndpoint._add_images, RuntimeEndpoint, program, choices)
    assert choices["video_data"] == [data["video_data"]] * 3
    sent = Path(video.path).with_name("sent.mp4")
    sent.write_bytes(base64.b64decode(data["video_data"][0].removeprefix(frontend_video.PREFIX)))
    with av.open(str(sent)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (112, 114, 2)
        assert sum(1 for _ in container.decode(stream)) == 12


def test_an_image_goes_out_as_the_host_sends_it(program: Any) -> None:
    program.images_.append(("picture.png", "aGVsbG8="))
    data: dict[str, Any] = {}
    frontend_video.send_media(RuntimeEndpoint._add_images, RuntimeEndpoint, program, data)
    assert data == {"image_data": "aGVsbG8="}


def test_a_video_of_no_frames_is_refused(program: Any, video: SglVideo) -> None:
    with pytest.raises(ValueError, match="num_frames 0; at least 1"):
        frontend_video.add_video(program, SglVideo(video.path, 0))


def test_a_template_without_a_video_placeholder_is_refused(program: Any, video: SglVideo) -> None:
    program.chat_template = get_chat_template("llama-2-chat")
    with pytest.raises(ValueError, match="'llama-2-chat' has no video placeholder"):
        frontend_video.add_video(program, video)
