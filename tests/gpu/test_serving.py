"""Servers on the device, in deterministic mode: strict answers are the target's own.

``LVSPEC_GPU_SERVER_ARGS`` holds further arguments for every server, where a machine needs some, for
example ``--mm-attention-backend triton_attn``; the attention backend is still the tested one.
"""

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang import tiny
from lvspec_sglang.serving import LocalServer, together
from tests.e2e.conftest import Clips, clips  # noqa: F401  (a fixture)
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, request

GIVEN = shlex.split(os.environ.get("LVSPEC_GPU_SERVER_ARGS", ""))
# In log probability. Verify and decode kernels round bfloat16 logits differently, by a step or two.
TIE = 0.05
LIKELIEST = 8
SHARE_FROM = 256  # tokens of tiny videos, which do not have enough of them for it to pay
# Heads as wide as the kernels of the attention backends take them.
SHAPE = tiny.TinyShape(hidden=512, layers=4, heads=4, kv_heads=2)


@pytest.fixture(scope="module", params=["flashinfer", "fa3", "triton"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalServer, LocalServer]]:
    if request.param == "fa3":
        pytest.importorskip("sgl_kernel.flash_attn", exc_type=ImportError)
        if any(argument.startswith("--attention-backend") for argument in GIVEN):
            pytest.skip("LVSPEC_GPU_SERVER_ARGS names an attention backend: fa3 may be missing")
    alone, lvspec = servers(
        tmp_path_factory.mktemp("gpu"), "--attention-backend", request.param,
        "--enable-deterministic-inference",
    )  # fmt: skip
    with together(alone, lvspec):
        yield alone, lvspec


def servers(folder: Path, *arguments: str) -> tuple[LocalServer, LocalServer]:
    """A target alone and LVSPEC, strict, in front of it; checkpoints are written to ``folder``."""
    target = tiny.write_qwen2_5_vl(folder / "target", SHAPE, seed=1)
    draft = tiny.write_perturbed(target, folder / "near", noise=0.02, seed=2)
    common = (
        "--random-seed", "1", "--mem-fraction-static", "0.2", "--dtype", "bfloat16",
        "--decode-log-interval", "1", "--cuda-graph-max-bs-decode", "8", *GIVEN, *arguments,
    )  # fmt: skip
    config = {"preset": "strict", "draft_length": {"measure": False}, "share_from": SHARE_FROM}
    lvspec = LocalServer(
        target, *common, "--speculative-algorithm", "LVSPEC",
        "--speculative-draft-model-path", str(draft), "--lvspec-config", json.dumps(config),
    )  # fmt: skip
    return LocalServer(target, *common), lvspec


def assert_same(
    alone: LocalServer,
    payloads: list[dict[str, Any]],
    answers: list[dict[str, Any]],
    expected: list[dict[str, Any]],
) -> None:
    """Whether ``answers`` are the ``expected`` ones, or part from them where ``alone`` is torn."""
    for payload, got, want in zip(payloads, answers, expected, strict=True):
        assert got["prompt"] == want["prompt"]
        if got["ids"] == want["ids"]:
            assert got["finish"] == want["finish"]
            continue
        (mine,), (its,) = got["ids"], want["ids"]
        differ = (i for i, (one, other) in enumerate(zip(mine, its, strict=False)) if one != other)
        place = next(differ, None)
        assert place is not None, f"one answer is the other's beginning: {mine}, {its}"
        gap = preference(alone, payload, place, its[place], mine[place])
        assert gap <= TIE, f"token {place} of {payload['text']!r}: {gap} less likely than its own"


def preference(
    alone: LocalServer, payload: dict[str, Any], place: int, its: int, other: int
) -> float:
    """By how much ``alone`` prefers ``its`` token at ``place`` to the ``other``; log probability.

    Infinite if one of them is not among its likeliest.
    """
    sampling = payload["sampling_params"] | {"max_new_tokens": place + 1}
    asked = payload | {"sampling_params": sampling, "top_logprobs_num": LIKELIEST}
    meta = alone.generate(**asked, return_logprob=True)["meta_info"]
    likely = {token: chance for chance, token, _ in meta["output_top_logprobs"][place]}
    if not {its, other} <= likely.keys():
        return float("inf")
    return abs(float(likely[its] - likely[other]))


def test_strict_answers_are_the_targets(
    pair: tuple[LocalServer, LocalServer],
    clips: Clips,  # noqa: F811
) -> None:
    alone, lvspec = pair
    payloads = [
        request(chat("text"), tokens=60, ignore_eos=True),
        request(chat(VIDEO + "one"), video=clips.short),
        request(chat(VIDEO + "two"), video=clips.short),
        request(chat(VIDEO + VIDEO + "both"), video=[clips.short, clips.other]),
        request(chat(VIDEO + "long"), video=clips.long),
    ]
    expected = [answer(alone, payload) for payload in payloads]
    one_by_one = [answer(lvspec, payload) for payload in payloads]
    assert_same(alone, payloads, one_by_one, expected)
    assert_same(alone, payloads, answer_all(lvspec, payloads), expected)


def test_relaxed_answers_are_relaxed(
    pair: tuple[LocalServer, LocalServer],
    clips: Clips,  # noqa: F811
) -> None:
    loose = {"custom_params": {"lvspec": {"preset": "paper"}}, "ignore_eos": True}
    meta = pair[1].generate(**request(chat(VIDEO + "x"), 80, video=clips.short, **loose))
    assert meta["meta_info"]["lvspec"]["loose"] > 0


def test_rounds_run_captured_graphs(pair: tuple[LocalServer, LocalServer]) -> None:
    pair[1].generate(**request(chat("graphs"), 60, ignore_eos=True))
    assert_captured(pair[1])


def assert_captured(server: LocalServer) -> None:
    """Whether every round that ``server`` logged ran a captured graph."""
    log = server.log.read_text(errors="replace")
    rounds = [line for line in log.splitlines() if "Decode batch" in line]
    assert rounds
    assert all("cuda graph: True" in line for line in rounds)
