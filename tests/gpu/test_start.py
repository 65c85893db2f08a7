"""A server starts and answers about no video: what to know of a machine first.

It needs no library that reads videos, and of the kernels only those of the backend it is given.
"""

from pathlib import Path

from tests.e2e.prompts import chat, request
from tests.gpu.test_serving import assert_captured, servers


def test_a_server_starts_and_answers(tmp_path: Path) -> None:
    _, lvspec = servers(tmp_path)
    with lvspec:
        said = lvspec.generate(**request(chat("text"), 60, ignore_eos=True))["meta_info"]
        assert said["completion_tokens"] == 60
        assert said["spec_verify_ct"] < 50, "of a draft that is nearly the target's, too little"
        assert_captured(lvspec)
