"""``lvspec bench speed`` as typed, on the mini pair, with acceptance from a trace."""

import json
from pathlib import Path

import pytest

from lvspec_sglang.bench.speed import sides
from lvspec_sglang.cli import main


def test_sides_are_compared_and_rounds_are_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "speed.json"
    arguments = "--clips 1 --batches 1,2 --tokens 160 --repeats 1 --accepted 5".split()
    assert main(["bench", "speed", *arguments, "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert (record["acceptance"], record["weights"]) == ("simulated", "real")
    assert "acceptance simulated" in capsys.readouterr().out
    rows = {(row["side"], row["batch"]): row for row in record["rows"]}
    assert set(rows) == {(side.name, batch) for side in sides("") for batch in (1, 2)}
    assert rows["SGLang alone", 1]["times_alone"] == 1
    assert rows["SGLang alone", 1]["T"] is None
    for (side, _), row in rows.items():
        assert row["lowest"] <= row["tokens_per_second"] <= row["highest"]
        if side.startswith("LVSPEC"):
            assert 2.5 < row["T"] < 8
            times = row["ms_per_round"]
            parts = sum(times[name] for name in ("draft", "plan", "verify", "accept"))
            assert 0 < parts < 1.2 * times["round"]
            assert ("relevance" in times) == (side != "LVSPEC strict")
