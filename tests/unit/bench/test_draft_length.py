"""``lvspec bench draft-length`` with servers that only pretend."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang.bench import draft_length
from lvspec_sglang.cli import main

ROUNDS = 'lvspec_rounds_total{{decoding="{}"}}'
DRAFTED = "lvspec_drafted_tokens_total"
SPEEDS = {"alone": 100.0, "fixed": 40.0, "chosen": 90.0}


class Pretended:
    """Answers at its side's speed; a round in four drafts four tokens where lengths are chosen."""

    def __init__(self, model: Path, *arguments: str) -> None:
        config = arguments[-1] if "--lvspec-config" in arguments else ""
        measure = bool(config) and json.loads(config)["draft_length"]["measure"]
        self.side = "chosen" if measure else "fixed" if config else "alone"
        self.rounds = 0

    def scheduler_state(self) -> dict[str, Any]:
        if self.side == "alone":
            return {}
        drafted = self.rounds / 4 if self.side == "chosen" else self.rounds
        told = {ROUNDS.format("drafted"): drafted, DRAFTED: 4 * drafted}
        if drafted < self.rounds:
            told[ROUNDS.format("plain")] = self.rounds - drafted
        sizes = {"1": {"length": 4, "tokens_per_second": {"4": 40.0, "0": None}}}
        return {"lvspec": {**told, "draft_length": sizes}}


def decode(server: Pretended, payloads: list[dict[str, Any]]) -> dict[str, Any]:
    server.rounds += 8 * len(payloads)
    return {"tokens_per_second": SPEEDS[server.side], "accepted": 0.0, "prompt_tokens": 9}


def test_each_side_is_compared_with_the_target_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(draft_length, "LocalServer", Pretended)
    monkeypatch.setattr(draft_length, "together", lambda *servers: contextlib.nullcontext())
    monkeypatch.setattr(draft_length, "decode", decode)
    path = tmp_path / "length.json"
    arguments = "--clips 1 --batches 1,2 --repeats 2".split()
    assert main(["bench", "draft-length", *arguments, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert {(row["draft"], row["side"], row["batch"]) for row in rows} == {
        (draft, side, batch) for draft in ("good", "useless") for side in SPEEDS for batch in (1, 2)
    }
    for row in rows:
        assert row["times_alone"] == SPEEDS[row["side"]] / 100
        assert row["drafted"] == {"alone": None, "fixed": 4.0, "chosen": 1.0}[row["side"]]
        assert (row["believed"] is None) == (row["side"] == "alone" or row["batch"] == 2)
    assert "0.90 (0.90-0.90)" in capsys.readouterr().out
