"""Users of one video on FlashInfer, whose verify forwards read it once for all of them.

Deterministic mode turns the radix cache off there, so these servers run without it.
"""

from pathlib import Path

from lvspec_sglang.serving import together
from tests.e2e.conftest import Clips, clips  # noqa: F401  (a fixture)
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, request
from tests.gpu.test_serving import SHARE_FROM, assert_captured, assert_same, servers

USERS = 8
TOKENS = 3000  # so many that the first user still reads when the last one's video is decoded
READERS = "lvspec_shared_prefix_groups"


def test_answers_about_a_video_shared_on_flashinfer_are_the_targets(
    tmp_path: Path,
    clips: Clips,  # noqa: F811
) -> None:
    alone, lvspec = servers(tmp_path, "--attention-backend", "flashinfer", "--enable-metrics")
    users = [
        request(chat(f"{VIDEO}user {n}"), TOKENS, video=clips.long, ignore_eos=True)
        for n in range(USERS)
    ]
    with together(alone, lvspec):
        expected = [answer(alone, user) for user in users]
        first = answer(lvspec, users[0])  # from here on the cache owns the video's slots
        text = answer(lvspec, request(chat("user 0"), 1))
        visual = first["prompt"][0] - text["prompt"][0]
        assert (USERS - 1) * visual >= SHARE_FROM
        before = lvspec.counters()
        assert_same(alone, users, answer_all(lvspec, users), expected)
        after = lvspec.counters()
        videos, readers = (
            after[f"{READERS}_{what}"] - before[f"{READERS}_{what}"] for what in ("count", "sum")
        )
        assert readers > 1.5 * videos, "users read the video together in hardly a round"
        assert_captured(lvspec)
