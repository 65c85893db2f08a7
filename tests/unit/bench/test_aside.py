"""``lvspec bench aside`` with servers that only pretend."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang.bench import aside
from lvspec_sglang.cli import main

SPEEDS = {"alone": 100.0, "drafts": 40.0, "steps aside": 90.0}


class Pretended:
    """Answers at its side's speed; every fourth round of the side that steps aside drafts."""

    def __init__(self, model: Path, *arguments: str) -> None:
        config = arguments[-1] if "--lvspec-config" in arguments else ""
        measure = bool(config) and json.loads(config)["step_aside"]["measure"]
        self.side = "steps aside" if measure else "drafts" if config else "alone"
        self.rounds = 0

    def scheduler_state(self) -> dict[str, Any]:
        if self.side == "alone":
            return {}
        drafted = self.rounds / 4 if self.side == "steps aside" else self.rounds
        told = {aside.ROUNDS.format("drafted"): drafted}
        if drafted < self.rounds:
            told[aside.ROUNDS.format("plain")] = self.rounds - drafted
        paces = {"1": {"tokens_per_second": {"drafted": 40.0, "plain": None}}}
        return {"lvspec": {**told, "step_aside": paces}}


def decode(server: Pretended, payloads: list[dict[str, Any]]) -> dict[str, Any]:
    server.rounds += 8 * len(payloads)
    return {"tokens_per_second": SPEEDS[server.side], "accepted": 0.0, "prompt_tokens": 9}


def test_each_side_is_compared_with_the_target_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aside, "LocalServer", Pretended)
    monkeypatch.setattr(aside, "together", lambda *servers: contextlib.nullcontext())
    monkeypatch.setattr(aside, "decode", decode)
    path = tmp_path / "aside.json"
    arguments = "--clips 1 --batches 1,2 --repeats 2".split()
    assert main(["bench", "aside", *arguments, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert {(row["draft"], row["side"], row["batch"]) for row in rows} == {
        (draft, side, batch) for draft in ("good", "useless") for side in SPEEDS for batch in (1, 2)
    }
    for row in rows:
        assert row["times_alone"] == SPEEDS[row["side"]] / 100
        assert row["drafted"] == {"alone": None, "drafts": 1.0, "steps aside": 0.25}[row["side"]]
        assert (row["believed"] is None) == (row["side"] == "alone" or row["batch"] == 2)
    assert "0.90 (0.90-0.90)" in capsys.readouterr().out
