"""No draft path: the target drafts for itself, over the kept tokens of its own KV."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lvspec_sglang import tiny
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.serving import LocalServer, together
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, request


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LocalServer]]:
    """The target alone; drafting for itself over whole videos; over a tenth, with retractions."""
    target = tiny.write_qwen2_5_vl(tmp_path_factory.mktemp("target"), tiny.TARGET, seed=1)
    common = (target, "--dtype", "float32", "--random-seed", "1")

    def lvspec(config: dict[str, Any], **env: str) -> LocalServer:
        return LocalServer(
            *common, "--chunked-prefill-size", "128", "--speculative-algorithm", "LVSPEC",
            "--lvspec-config", json.dumps({"preset": "strict", **config}), env=env,
        )  # fmt: skip

    servers = {
        "alone": LocalServer(*common),
        "whole": lvspec({"pruning": "none"}),
        "tenth": lvspec(
            {"pruning": "verifier", "keep": 0.1, "keep_at_least": 1},
            SGLANG_TEST_RETRACT="1", SGLANG_TEST_RETRACT_INTERVAL="9",
        ),
    }  # fmt: skip
    with together(*servers.values()):
        yield servers


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    clip = write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", moving_square(40, seed=4))
    return [
        request(chat("hello there"), 60),
        request(chat(VIDEO + "what is it?"), 60, video=clip, ignore_eos=True),
        request(chat(VIDEO + "what is it?", "a square", "and then?"), 60, video=clip),
        request(chat("json"), regex=r'\{"a": [0-9]{1,9}\}'),
        request(chat(VIDEO + "penalised"), 20, video=clip, frequency_penalty=0.6),
    ]


@pytest.mark.parametrize("name", ["whole", "tenth"])
def test_answers_are_the_targets(
    servers: dict[str, LocalServer], payloads: list[dict[str, Any]], name: str
) -> None:
    # Forced retraction makes the host itself forget how often a token was used.
    fair = payloads if name == "whole" else payloads[:-1]
    want = [answer(servers["alone"], payload) for payload in fair]
    assert [answer(servers[name], payload) for payload in fair] == want
    assert answer_all(servers[name], fair) == want


def test_over_the_whole_video_every_draft_is_accepted(
    servers: dict[str, LocalServer], payloads: list[dict[str, Any]]
) -> None:
    meta = servers["whole"].generate(**payloads[1])["meta_info"]
    assert meta["spec_verify_ct"] == -(-(meta["completion_tokens"] - 1) // 11)


def test_over_a_tenth_some_are(
    servers: dict[str, LocalServer], payloads: list[dict[str, Any]]
) -> None:
    meta = servers["tenth"].generate(**payloads[1])["meta_info"]
    assert 1.0 < meta["spec_accept_length"] < 11.0
    loads = servers["tenth"].get("/v1/loads").json()["loads"]
    assert loads, "no load is reported"
