"""A video is paid for once by the draft: by turns, by users, by forks, after an eviction."""

import math
from typing import Any

import pytest

from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import Clips, Servers
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, flush, request

KEEP = {"near": 0.25, "same": 1.0, "other": 0.1}
PREFILLED, ENCODED, CHOSEN = (
    f"lvspec_{name}_total" for name in ("draft_prefill_tokens", "draft_encodes", "choices")
)


def spent(server: LocalServer, payloads: list[dict[str, Any]]) -> dict[str, float]:
    """What LVSPEC's counters rose by while the server answered ``payloads`` at once."""
    before = server.counters()
    answer_all(server, payloads)
    return {name: value - before.get(name, 0.0) for name, value in server.counters().items()}


def video_tokens(server: LocalServer, clips: Clips) -> int:
    """How many tokens the clip ``other`` is."""
    with_video, without = (
        answer(server, request(chat(text + "count"), 1, **video))["prompt"][0]
        for text, video in ((VIDEO, {"video": clips.other}), ("", {}))
    )
    return with_video - without - 2


@pytest.mark.parametrize("draft", ["near", "same"])
def test_eight_users_on_one_video_pay_for_it_once(
    servers: Servers, clips: Clips, draft: str
) -> None:
    server: LocalServer = getattr(servers, draft)
    tokens = video_tokens(servers.alone, clips)
    kept = math.ceil(tokens * KEEP[draft])
    asked = [f"{number}, what does the user see?" for number in range(8)]
    users = [request(chat(VIDEO + text), 12, video=clips.other) for text in asked]
    texts = sum(answer(servers.alone, request(chat(text), 1))["prompt"][0] + 2 for text in asked)
    flush(server)
    first = spent(server, users)
    assert first[ENCODED] == 1
    assert first.get(CHOSEN, 0) == (draft == "near")
    assert kept < first[PREFILLED] <= kept + texts
    before = server.counters()
    second = server.generate(
        **request(chat(VIDEO + asked[0], "a thing", "and then?"), 12, video=clips.other)
    )["meta_info"]
    after = server.counters()
    assert after[ENCODED] == before[ENCODED] and after.get(CHOSEN) == before.get(CHOSEN)
    # Of what the target took from the cache the draft lacks at most the last answer's end.
    new = second["prompt_tokens"] - second["cached_tokens"]
    assert new <= after[PREFILLED] - before[PREFILLED] <= new + 2


def test_a_video_that_nobody_drafts_from_at_first_is_chosen_from_all_the_same(
    servers: Servers, clips: Clips
) -> None:
    flush(servers.near)
    penalised = request(chat(VIDEO + "first"), 4, video=clips.other, repetition_penalty=1.3)
    assert spent(servers.near, [penalised])[CHOSEN] == 1
    after = spent(servers.near, [request(chat(VIDEO + "then"), 12, video=clips.other)])
    assert after.get(CHOSEN, 0) == 0 and after["lvspec_visual_tokens_total"] > 0


def test_the_video_of_an_evicted_prefix_is_encoded_once(servers: Servers, clips: Clips) -> None:
    """Other text before the video: nothing of it is cached, the draft's features of it are."""
    server = servers.near
    spent(server, [request(chat(VIDEO + "here"), 12, video=clips.other)])
    again = spent(server, [request(chat("elsewhere " + VIDEO + "here"), 12, video=clips.other)])
    assert again[ENCODED] == again[CHOSEN] == 0
    assert again[PREFILLED] >= math.ceil(video_tokens(servers.alone, clips) * KEEP["near"])


@pytest.mark.parametrize("draft", ["near", "other"])
def test_forks_of_one_conversation(servers: Servers, clips: Clips, draft: str) -> None:
    """Branches that share a turn, at once and one by one, answer as the target alone does."""
    server: LocalServer = getattr(servers, draft)
    first = request(chat(VIDEO + "fork"), 24, video=clips.other)
    said = servers.alone.generate(**first)["text"]
    forks = [
        request(chat(VIDEO + "fork", said, f"branch {n}"), 30, video=clips.other) for n in range(4)
    ]
    want = [answer(servers.alone, payload) for payload in forks]
    flush(server)
    assert answer(server, first) == answer(servers.alone, first)
    assert answer_all(server, forks) == want
    assert [answer(server, payload) for payload in forks] == want
