"""Strict LVSPEC answers with the target's own tokens, whatever the request and the draft."""

from typing import Any

import pytest

from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import CHUNK, Clips, Servers
from tests.e2e.prompts import IMAGE, VIDEO, answer, answer_all, chat, flush, request

SCHEMA = '{"type": "array", "items": {"type": "integer"}, "maxItems": 4}'
DRAFTS = ("near", "same", "other")


def payloads(clips: Clips) -> dict[str, dict[str, Any]]:
    return {
        "text": request(chat("hello there")),
        "one token": request(chat("hello there"), tokens=1),
        "video": request(chat(VIDEO + "what is it?"), video=clips.short),
        "image": request(chat(IMAGE + "what is it?"), image=clips.picture),
        "video longer than a chunk": request(chat(VIDEO + "describe"), video=clips.long),
        "video at the prompt's end": request(VIDEO, video=clips.other),
        "two videos": request(chat(VIDEO + VIDEO + "same?"), video=[clips.short, clips.other]),
        "a long video after a short one": request(
            chat(VIDEO + VIDEO + "longer?"), video=[clips.short, clips.long]
        ),
        "video and image": request(
            chat(VIDEO + IMAGE + "which?"), video=clips.short, image=clips.picture
        ),
        "many tokens": request(chat("go on"), tokens=150, ignore_eos=True),
        "several answers": request(chat("again"), tokens=12, n=2),
        "stop string": request(chat("stop"), stop=["a", "7", "$"]),
        "logit bias": request(chat("bias"), tokens=24, logit_bias={"70": 6.0}),
        "grammar": request(chat("json"), regex=r'\{"a": [0-9]{1,9}, "b": "[a-z]{3,9}"\}'),
        "grammar on a video": request(
            chat(VIDEO + "json"), video=clips.short, json_schema=SCHEMA
        ),
    }  # fmt: skip


# Forced retraction makes the host itself forget how often a token was used.
PENALISED = {
    "penalties": {"frequency_penalty": 0.7, "presence_penalty": 0.2},
    "repetition": {"repetition_penalty": 1.3, "min_new_tokens": 9},
    "a token again and again": {"logit_bias": {"70": 9.0}, "frequency_penalty": 1.5},
}


@pytest.fixture(scope="package")
def expected(servers: Servers, clips: Clips) -> dict[str, dict[str, Any]]:
    return {name: answer(servers.alone, payload) for name, payload in payloads(clips).items()}


@pytest.mark.parametrize("draft", DRAFTS)
def test_one_request_at_a_time(
    servers: Servers, clips: Clips, expected: dict[str, dict[str, Any]], draft: str
) -> None:
    server: LocalServer = getattr(servers, draft)
    assert expected["video longer than a chunk"]["prompt"][0] > 2 * CHUNK
    for name, payload in payloads(clips).items():
        assert answer(server, payload) == expected[name], name


@pytest.mark.parametrize("draft", DRAFTS)
def test_eight_at_once(
    servers: Servers, clips: Clips, expected: dict[str, dict[str, Any]], draft: str
) -> None:
    names = ["text", "video", "image", "two videos", "many tokens", "grammar", "video and image"]
    names.append("video longer than a chunk")
    mixed = [payloads(clips)[name] for name in names]
    for name, got in zip(names, answer_all(getattr(servers, draft), mixed), strict=True):
        assert got == expected[name], name


@pytest.mark.parametrize("draft", ["near", "same"])
@pytest.mark.parametrize("name", PENALISED)
def test_penalised_requests_beside_others(
    servers: Servers, clips: Clips, draft: str, name: str
) -> None:
    mixed = [
        request(chat(VIDEO + "penalised"), tokens=30, video=clips.short, **PENALISED[name]),
        request(chat("free"), tokens=30),
    ]
    assert answer_all(getattr(servers, draft), mixed) == answer_all(servers.alone, mixed)


@pytest.mark.parametrize("draft", DRAFTS)
def test_stop_token_inside_a_round(servers: Servers, clips: Clips, draft: str) -> None:
    whole = answer(servers.alone, request(chat(VIDEO + "what is it?"), video=clips.short))
    stopped = request(
        chat(VIDEO + "what is it?"), video=clips.short, stop_token_ids=[whole["ids"][0][7]]
    )
    assert answer(getattr(servers, draft), stopped) == answer(servers.alone, stopped)


@pytest.mark.parametrize("draft", DRAFTS)
def test_logprobs(servers: Servers, clips: Clips, draft: str) -> None:
    payload = request(
        chat(VIDEO + "sure?"), 12, video=clips.short, return_logprob=True, top_logprobs_num=2
    )
    want, got = (
        server.generate(**payload)["meta_info"]["output_token_logprobs"]
        for server in (servers.alone, getattr(servers, draft))
    )
    assert [token for _, token, _ in got] == [token for _, token, _ in want]
    assert [value for value, _, _ in got] == pytest.approx([v for v, _, _ in want], abs=2e-3)


@pytest.mark.parametrize("draft", ["near", "same"])
def test_a_second_turn_is_cached_as_without_speculation(
    servers: Servers, clips: Clips, draft: str
) -> None:
    question = f"{VIDEO}turn one, {draft}"
    first = request(chat(question), video=clips.other)
    said = servers.alone.generate(**first)["text"]
    for server in (servers.alone, getattr(servers, draft)):
        flush(server)
    second = request(chat(question, said, "and then?"), video=clips.other)
    alone, lvspec = (
        [server.generate(**payload) for payload in (first, second)]
        for server in (servers.alone, getattr(servers, draft))
    )
    assert [turn["output_ids"] for turn in lvspec] == [turn["output_ids"] for turn in alone]
    cached = [turn["meta_info"]["cached_tokens"] for turn in alone]
    assert [turn["meta_info"]["cached_tokens"] for turn in lvspec] == cached
    assert cached[1] > 100, "the second turn did not reuse the video"


def test_a_draft_equal_to_the_target_is_always_accepted(servers: Servers, clips: Clips) -> None:
    for payload in (
        request(chat("go on"), tokens=111, ignore_eos=True),
        request(chat(VIDEO + "go on"), tokens=111, video=clips.other, ignore_eos=True),
        request(chat(VIDEO + "long"), tokens=45, video=clips.long, ignore_eos=True),
    ):
        meta = servers.same.generate(**payload)["meta_info"]
        rounds = -(-(meta["completion_tokens"] - 1) // 11)
        assert meta["spec_verify_ct"] == rounds
        histogram = meta["spec_correct_drafts_histogram"]
        assert histogram[10] == sum(histogram), "a round of the same model rejected a token"


def test_some_drafts_of_a_near_model_are_accepted(servers: Servers, clips: Clips) -> None:
    payload = request(chat(VIDEO + "near"), tokens=80, video=clips.short, ignore_eos=True)
    meta = servers.near.generate(**payload)["meta_info"]
    # It sees a quarter of the video: 1.4 where a draft that sees all of it has more than 1.5.
    assert 1.2 < meta["spec_accept_length"] < 10.5
