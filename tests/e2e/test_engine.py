"""``sglang.Engine``, overlap scheduling, and what a wrong start says."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lvspec_sglang.serving import LocalServer, ServerFailed
from tests.e2e.conftest import STEP_ASIDE, Clips, Servers
from tests.e2e.prompts import VIDEO, answer, chat, request

WIDTH = 11  # ten drafted tokens, the default


def test_the_engine_with_overlap_scheduling_answers_as_the_target_alone(
    servers: Servers, clips: Clips, checkpoints: dict[str, Path]
) -> None:
    payloads = [
        request(chat("overlapped"), tokens=50, ignore_eos=True),
        request(chat(VIDEO + "overlapped"), video=clips.short),
        request(chat(VIDEO + "long"), video=clips.long),
        request(chat("json"), regex=r'\{"a": [0-9]{1,9}\}'),
        request(chat("penalised"), tokens=20, frequency_penalty=0.6),
    ]
    program = Path(__file__).with_name("engine_program.py")
    config = {"preset": "strict", "step_aside": STEP_ASIDE}
    done = subprocess.run(
        [
            sys.executable, str(program), str(checkpoints["target"]), str(checkpoints["near"]),
            json.dumps(payloads),
        ],
        capture_output=True, text=True, timeout=600, cwd=program.parents[2],
        env={**os.environ, "LVSPEC_CONFIG": json.dumps(config)},
    )  # fmt: skip
    printed = [line for line in done.stdout.splitlines() if line.startswith('{"overlapping"')]
    assert printed, done.stderr[-3000:]
    result = json.loads(printed[0])
    assert result["overlapping"]
    assert result["ids"] == [answer(servers.alone, payload)["ids"][0] for payload in payloads]


def test_the_gpus_attention_path_in_torch_answers_as_the_target_alone(
    servers: Servers, clips: Clips, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    loose = {"custom_params": {"lvspec": {"preset": "paper"}}, "ignore_eos": True}
    payloads = [
        request(chat("text"), tokens=30),
        request(chat(VIDEO + "one"), video=clips.short),
        request(chat(VIDEO + "two"), video=clips.short),
        request(chat(VIDEO + VIDEO + "both"), video=[clips.short, clips.other]),
        request(chat(VIDEO + "long"), video=clips.long),
        request(VIDEO, video=clips.other),
        request(chat(VIDEO + "loosely"), tokens=60, video=clips.short, **loose),
        request(chat(VIDEO + "again"), video=clips.short, min_new_tokens=1),
    ]
    notes = tmp_path / "notes"
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.e2e.planned_program", str(checkpoints["target"]),
            str(checkpoints["near"]), json.dumps(payloads),
        ],
        capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2],
        env={
            **os.environ, "LVSPEC_TEST_NOTES": str(notes),
            "LVSPEC_CONFIG": '{"preset": "strict"}',
        },
    )  # fmt: skip
    printed = [line for line in done.stdout.splitlines() if line.startswith('{"results"')]
    assert printed, done.stderr[-3000:]
    results = json.loads(printed[0])["results"]
    *expected, alone = (
        answer(servers.alone, payload)["ids"][0] for payload in [*payloads[:-2], payloads[-1]]
    )
    first, second, undrafted = results[:7], results[7:14], results[14:]
    for once in (first, second):
        assert [result["output_ids"] for result in once[:-1]] == expected
        assert once[-1]["meta_info"]["lvspec"]["loose"] > 0
    assert [result["output_ids"] for result in undrafted] == [alone] * 4
    forwards = Counter(notes.read_text().splitlines())
    assert forwards[f"shared {WIDTH}"] > 10
    assert forwards[f"plain {WIDTH}"] > len(alone) - 2
    assert sum(forwards[f"{kind} 1"] for kind in ("plain", "shared")) > 0


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
