"""``sglang.Engine``, overlap scheduling, and what a wrong start says."""

from pathlib import Path

import pytest

from lvspec_sglang.serving import LocalServer, ServerFailed
from tests.e2e.conftest import DRAFT_LENGTH, Clips
from tests.e2e.engines import ON_CPU, generate
from tests.e2e.prompts import VIDEO, answer, chat, request


def test_the_engine_with_overlap_scheduling_answers_as_the_target_alone(
    clips: Clips, checkpoints: dict[str, Path]
) -> None:
    again = {"logit_bias": {"70": 9.0}, "frequency_penalty": 1.5}
    payloads = [
        request(chat("overlapped"), tokens=50, ignore_eos=True),
        request(chat(VIDEO + "overlapped"), video=clips.short),
        request(chat(VIDEO + "long"), video=clips.long),
        request(chat("json"), regex=r'\{"a": [0-9]{1,9}\}'),
        # Counted a token late, as the host does under overlap scheduling.
        request(chat("penalised"), tokens=30, ignore_eos=True, **again),
    ]
    with LocalServer(checkpoints["target"], "--dtype", "float32") as alone:
        wanted = [answer(alone, payload)["ids"][0] for payload in payloads]
    relax = {"custom_params": {"lvspec": {"preset": "paper", "trace": True}}}
    relaxed = request(chat(VIDEO + "relaxed"), 90, video=clips.short, ignore_eos=True, **relax)
    config = {"preset": "strict", "draft_length": DRAFT_LENGTH}
    *answers, loose = generate(ON_CPU, checkpoints, [[*payloads, relaxed]], config)
    assert [given["output_ids"] for given in answers] == wanted
    # It outlives those before it in the batch, one of which is never drafted for.
    assert len(loose["meta_info"]["lvspec_trace"]["kind"]) == len(loose["output_ids"]) == 90
    assert loose["meta_info"]["lvspec"]["loose"] > 0


def test_an_answer_that_fills_the_pool_is_not_lost(checkpoints: dict[str, Path]) -> None:
    """It ends where a round could no longer reserve two chains; the target alone ends later."""
    filling = request(chat("x" * 200), 1000, ignore_eos=True)
    options = {"max_total_tokens": 400}
    (given,) = generate(ON_CPU, checkpoints, [[filling]], {"preset": "strict"}, options)
    assert given["meta_info"]["finish_reason"]["type"] == "length"
    assert given["meta_info"]["prompt_tokens"] + len(given["output_ids"]) > 400 - 30


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pp-size", "2"], "LVSPEC does not work with --pp-size 2"),
        (
            ["--lvspec-config", '{"preset": "quick"}'],
            "preset 'quick': one of strict, paper, balanced, fast",
        ),
    ],
)
def test_a_wrong_start_says_what_to_type(
    checkpoints: dict[str, Path], arguments: list[str], said: str
) -> None:
    draft = ("--speculative-draft-model-path", str(checkpoints["near"]))
    server = LocalServer(
        checkpoints["target"], "--speculative-algorithm", "LVSPEC", *draft, *arguments
    )
    server.start()
    try:
        with pytest.raises(ServerFailed, match=said):
            server.wait_ready()
    finally:
        server.stop()
