"""Qwen2-VL: its own vision tower, the same spans and M-RoPE as Qwen2.5-VL."""

import json
from collections.abc import Iterator

import pytest

from lvspec_sglang import tiny
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.serving import LocalServer, together
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, request


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[LocalServer, LocalServer]]:
    """The target alone, and LVSPEC with a noisy copy and a quarter of each video as draft."""
    folder = tmp_path_factory.mktemp("qwen2-vl")
    target = tiny.write_qwen2_vl(folder / "target", tiny.TARGET, seed=1)
    near = tiny.write_perturbed(target, folder / "near", noise=0.02, seed=2)
    common = (target, "--dtype", "float32", "--random-seed", "1")
    alone = LocalServer(*common)
    lvspec = LocalServer(
        *common, "--chunked-prefill-size", "128", "--speculative-algorithm", "LVSPEC",
        "--speculative-draft-model-path", str(near),
        "--lvspec-config", json.dumps({"preset": "strict", "keep": 0.25, "keep_at_least": 1}),
        env={"LVSPEC_CHECK_DRAFT_KV": "1", "LVSPEC_POISON_DRAFT_KV": "1"},
    )  # fmt: skip
    with together(alone, lvspec):
        yield alone, lvspec


def test_answers_are_the_targets_and_drafts_are_accepted(
    servers: tuple[LocalServer, LocalServer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    alone, lvspec = servers
    clip = write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", moving_square(40, seed=4))
    payloads = [
        request(chat("hello there"), 40),
        request(chat(VIDEO + "what is it?"), 60, video=clip, ignore_eos=True),
        request(chat(VIDEO + "what is it?", "a square", "and then?"), 40, video=clip),
    ]
    want = [answer(alone, payload) for payload in payloads]
    assert [answer(lvspec, payload) for payload in payloads] == want
    assert answer_all(lvspec, payloads) == want
    loose = {"custom_params": {"lvspec": {"preset": "paper"}}, "ignore_eos": True}
    metas = [
        lvspec.generate(**asked)["meta_info"]
        for asked in (payloads[1], request(chat(VIDEO + "what is it?"), 60, video=clip, **loose))
    ]
    assert metas[0]["spec_accept_length"] > 1
    assert metas[1]["lvspec"]["loose"] > 0
