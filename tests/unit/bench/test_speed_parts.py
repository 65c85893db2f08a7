"""What ``lvspec bench speed`` is made of: simulated acceptance, shapes, the clock."""

import json
from pathlib import Path

import pytest
import torch

from lvspec_sglang.bench.shapes import SHAPES, shape_of, write_shape
from lvspec_sglang.bench.simulated import accepted_trace, mean_accepted, read_trace
from lvspec_sglang.bench.timed_server import KEPT, Clock, Simulated
from lvspec_sglang.cli import main
from lvspec_sglang.pairing import check_pair, check_tokenizers
from lvspec_sglang.verify.rule import Kind, Policy, accept


def test_a_simulated_trace_has_the_mean_asked_for() -> None:
    assert mean_accepted(1.0, 10) == 10
    for mean in (0.5, 3.28, 7.76):
        trace = accepted_trace(mean, 10, rounds=20_000)
        assert abs(sum(trace) / len(trace) - mean) < 0.1
        assert 0 <= min(trace) <= max(trace) <= 10
    with pytest.raises(ValueError, match="--accepted 10: above 0 and below the 10 drafted tokens"):
        accepted_trace(10, 10)


def test_a_trace_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("[3, 0, 4]")
    assert read_trace(path, 4) == [3, 0, 4]
    for wrong in ("[]", "[5]", '{"a": 1}', "[0.5]"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="whole numbers from 0 to 4"):
            read_trace(path, 4)


def test_a_simulated_verdict_follows_the_trace_and_the_limit() -> None:
    drafted, target = torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.arange(10, 19).view(3, 3)
    limit, zero = torch.tensor([2, 2, 0]), torch.zeros(3)
    policy = Policy(limit, zero, zero, limit, limit, zero > 1, zero, limit)
    rule = Simulated(accept, [1, 2, 2, 0], "cpu")
    verdict = rule(drafted, target, policy, None)
    assert verdict.accept_lens.tolist() == [2, 3, 1]
    assert verdict.tokens[0, :2].tolist() == [1, 11]
    assert verdict.tokens[1].tolist() == [3, 4, 15]
    assert verdict.kinds[0, :2].tolist() == [Kind.MATCH, Kind.TARGET]
    assert verdict.kinds[1].tolist() == [Kind.MATCH, Kind.MATCH, Kind.BONUS]
    assert rule(drafted, target, policy, None).accept_lens.tolist() == [1, 2, 1]


def test_the_clock_writes_rounds_that_have_passed(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "times", on_gpu=False)
    double = clock.timed("draft", lambda x: 2 * x)
    for _ in range(2 * KEPT + 1):
        start = clock.begin()
        assert double(double(4)) == 16
        clock.end(start)
    lines = [json.loads(line) for line in (tmp_path / "times").read_text().splitlines()]
    assert len(lines) == KEPT
    assert "between" not in lines[0]
    assert all(0 < line["draft"] < line["round"] for line in lines)
    assert all("between" in line for line in lines[1:])


def test_shapes_are_pairs_the_host_can_load(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    folders = {name: write_shape(name, tmp_path) for name in SHAPES}
    configs = {name: AutoConfig.from_pretrained(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        assert shape_of(folder) == SHAPES[name]
    check_pair(configs["32B"], configs["3B"], "32B", "3B")
    check_tokenizers(*(AutoTokenizer.from_pretrained(folders[n]) for n in ("32B", "7B")), "", "")
    billions = {name: shape.weight_bytes / 2e9 for name, shape in SHAPES.items()}
    assert (2.7, 6.5, 31) < (billions["3B"], billions["7B"], billions["32B"]) < (3.2, 7.2, 33)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "32B", "--draft", "7B"], "the shape 32B needs a CUDA GPU"),
        (["--host-algorithm", "NGRAM"], "needs a CUDA GPU; leave --host-algorithm out"),
        (["--target", "nowhere"], "'nowhere' is neither mini, 3B, 7B, 32B nor a checkpoint"),
        (["--accepted", "12"], "--accepted 12.0: above 0 and below the 10 drafted tokens"),
    ],
)
def test_what_speed_refuses(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "speed", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_kernels_run_here_and_say_what_needs_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    arguments = "--shape 3B --videos 64 --batches 1,2".split()
    assert main(["bench", "kernels", *arguments, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 2 + 3
    assert all(row["us"] > 0 for row in rows)
    assert [row.get("kernel") or row["kernels"] for row in rows] == ["needs a CUDA GPU"] * 5
