"""What a saved target alone may stand for."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang.bench import gpu
from lvspec_sglang.bench.baseline import asked_of, read_baseline
from lvspec_sglang.bench.cli import add_bench
from lvspec_sglang.bench.speed import compared
from lvspec_sglang.bench.speed_table import ALONE


def asked(typed: str = "") -> argparse.Namespace:
    benches = argparse.ArgumentParser().add_subparsers()
    bench = add_bench(benches, "speed", "", print, 16)
    gpu.add_speed_arguments(bench)
    return bench.parse_args(typed.split())


def record(typed: str = "", **hardware: Any) -> dict[str, Any]:
    rows = [{"side": ALONE, "batch": batch, "tokens_per_second": 9.0} for batch in (1, 4)]
    rows.append({"side": ALONE, "batch": 8, "left_out": "the server failed"})
    return {
        "hardware": {"accelerator": "H200", "cpu": "some", **hardware},
        "versions": {"sglang": "0.5.23", "torch": "2"},
        "asked": asked_of(asked(typed)),
        "rows": [*rows, {"side": "LVSPEC strict", "batch": 1}],
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "alone.json"
    path.write_text(json.dumps(record()))
    return path


def test_rows_of_the_target_alone_are_taken_whatever_drafts(saved: Path) -> None:
    now = record("--draft 3B --steps 4 --repeats 9 --batches 4", cpu="another")
    assert [row["batch"] for row in read_baseline(saved, now, [4])] == [4]
    assert len(read_baseline(saved, now, [1, 4])) == 2


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (record(accelerator="H100"), "accelerator was 'H200' there and is 'H100' here"),
        (record("--target 32B"), "target was 'mini' there and is '32B' here"),
        (record("--tokens 64"), "tokens was 128 there and is 64 here; leave --baseline out"),
        (record("--server-args=--tp-size=2"), "server_args was '' there"),
    ],
)
def test_another_run_is_refused(saved: Path, now: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_baseline(saved, now, [1])


@pytest.mark.parametrize("batch", [8, 16])
def test_a_batch_size_that_was_not_measured_is_refused(saved: Path, batch: int) -> None:
    with pytest.raises(ValueError, match=f"not measured at batch {batch}; leave --baseline out"):
        read_baseline(saved, record(), [1, batch])


@pytest.mark.parametrize("content", ["", "[]", '{"bench": "kernels"}'])
def test_what_is_no_speed_record_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="no record of bench speed"):
        read_baseline(path, record(), [1])


def test_sides() -> None:
    def names(typed: str) -> list[str]:
        return [side.name for side in compared(asked(typed))]

    assert names("") == [ALONE, "LVSPEC strict", "LVSPEC balanced", "LVSPEC fast"]
    assert names("--sides fast,alone") == [ALONE, "LVSPEC fast"]
    assert names("--baseline a.json")[0] == "LVSPEC strict"
    assert names("--sides balanced --baseline a.json") == ["LVSPEC balanced"]
    assert names("--host-algorithm NGRAM --sides strict") == ["SGLang NGRAM", "LVSPEC strict"]
