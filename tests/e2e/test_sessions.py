"""A session's turn may cut its history off; the host keeps the videos of what is gone."""

import pytest

from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import Clips, Servers
from tests.e2e.prompts import VIDEO, chat, request

BEFORE = 10  # tokens of the first turn that the second keeps; the video comes after them


def turns(server: LocalServer, clips: Clips) -> list[list[int]]:
    """What is answered to a question about a video, and to another without what led to it.

    The second turn and its answer end before the video stood: there the host alone would go on
    with the video's positions, and it ends where even the question is longer.
    """
    session = server.post("/open_session", {"capacity_of_str_len": 100_000}).json()
    first = request(chat("look here: " * 8 + VIDEO + "what?"), 16, video=clips.short)
    said = server.generate(**first, session_params={"id": session})
    cut = {"id": session, "rid": said["meta_info"]["id"], "offset": BEFORE}
    second = request("a cat<|im_end|>\n<|im_start|>assistant\n", 40, ignore_eos=True)
    after = server.generate(**second, session_params=cut)
    server.post("/close_session", {"session_id": session})
    return [said["output_ids"], after["output_ids"]]


@pytest.mark.parametrize("draft", ["near", "same", "other"])
def test_a_turn_without_the_video_before_it(servers: Servers, clips: Clips, draft: str) -> None:
    assert turns(getattr(servers, draft), clips) == turns(servers.alone, clips)
