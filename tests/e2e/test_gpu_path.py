"""Rounds on the path of a GPU, run on the CPU: what they answer, and what they replay."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Clips, Servers
from tests.e2e.engines import GRAPHS, ON_CPU, ON_GPU_PATH, generate
from tests.e2e.prompts import VIDEO, answer, chat, request

TOKENS = 12
STEPS = 4
CONTEXT = 331  # the longest request fills what the host lets it have of it
LENGTHS = "4,2,1,0,4,2,1,0,2"  # while one request is asked at a time
CONFIG = {
    "preset": "strict", "pruning": "verifier", "keep": 0.5, "keep_at_least": 1, "share_from": 16,
}  # fmt: skip
OPTIONS = {
    "speculative_num_steps": STEPS, "max_total_tokens": 4096, "context_length": CONTEXT,
    "triton_attention_num_kv_splits": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def calls(clips: Clips) -> list[list[dict[str, Any]]]:
    """One alone and one relaxed, then together more than a graph holds, then undrafted ones."""
    relax = {"custom_params": {"lvspec": {"preset": "paper", "trace": True}}}
    text = request(chat("text"), TOKENS)
    loose = request(chat(VIDEO + "loose"), TOKENS, video=clips.short, ignore_eos=True, **relax)
    together = [
        text,
        loose,
        request(chat(VIDEO + "one"), TOKENS, video=clips.short),
        request(chat(VIDEO + "two"), TOKENS, video=clips.short),
        request(chat(VIDEO + VIDEO + "both"), TOKENS, video=[clips.short, clips.other]),
    ]
    undrafted = request(chat("again"), 6, min_new_tokens=1)  # without a video all come at once
    return [[text], [loose], together, [undrafted] * 3]


@pytest.fixture(scope="module")
def expected(
    servers: Servers, checkpoints: dict[str, Path], calls: list[list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The answers of the CPU's own path, the strict ones those of the target alone."""
    answers = generate(ON_CPU, checkpoints, calls, CONFIG, OPTIONS, LVSPEC_TEST_LENGTHS=LENGTHS)
    for payload, given in zip(chain(*calls), answers, strict=True):
        if "custom_params" not in payload["sampling_params"]:
            assert given["output_ids"] == answer(servers.alone, payload)["ids"][0]
    longest = max(given["meta_info"]["prompt_tokens"] for given in answers)
    assert longest + TOKENS == CONTEXT - 2
    return answers


@pytest.mark.parametrize("backend", ["flashinfer", "fa3", "triton"])
def test_rounds_on_a_gpus_path_answer_as_on_the_cpus(
    backend: str, checkpoints: dict[str, Path], calls: list[list[dict[str, Any]]],
    expected: list[dict[str, Any]], tmp_path: Path,
) -> None:  # fmt: skip
    draft = "triton" if backend == "flashinfer" else backend
    options = {"attention_backend": backend, "speculative_draft_attention_backend": draft}
    notes = tmp_path / "notes"
    answers = generate(
        ON_GPU_PATH, checkpoints, calls, CONFIG, OPTIONS | options,
        TRITON_INTERPRET="1", LVSPEC_TEST_NOTES=str(notes), LVSPEC_TEST_LENGTHS=LENGTHS,
    )  # fmt: skip
    for got, want in zip(answers, expected, strict=True):
        assert got["output_ids"] == want["output_ids"]
        for key in ("lvspec", "spec_verify_ct"):
            assert got["meta_info"][key] == want["meta_info"][key]
        traces = [meta["meta_info"].get("lvspec_trace", {}) for meta in (got, want)]
        assert traces[0].keys() == traces[1].keys()
        for key in traces[0]:
            assert traces[0][key] == pytest.approx(traces[1][key], abs=1e-4), key
    assert sum(given["meta_info"]["lvspec"]["loose"] for given in answers) > 0
    ran = Counter(notes.read_text().splitlines())
    few, many = GRAPHS
    for forward in (
        f"graph target {few} plain", f"graph target {few} scored",
        f"graph target {many} {'shared' if backend == 'flashinfer' else 'scored'}",
        "eager target 5 TARGET_VERIFY", f"graph draft {few} None", f"graph draft {2 * many} None",
        "eager draft 10 DECODE",
    ):  # fmt: skip
        assert ran[forward] > 0, (forward, ran)
    planned = {line for line in ran if line.startswith("planned")}
    assert planned == ({"planned 0", f"planned {STEPS + 1}"} if backend == "flashinfer" else set())
    # Three padded chains are too many: their plain rounds are a token wide, and no graph's.
    assert ran["eager target 3 TARGET_VERIFY"] > 0
