"""What ``lvspec bench speed`` is made of: what is counted, shares, simulated acceptance, shapes."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lvspec_sglang.bench import speed, speed_runs
from lvspec_sglang.bench.decoding import (
    Asked,
    Unmeasured,
    counted,
    decode,
    kv_tokens,
    payloads,
)
from lvspec_sglang.bench.shapes import SHAPES, shape_of, write_shape
from lvspec_sglang.bench.simulated import accepted_trace, read_trace
from lvspec_sglang.bench.speed_runs import SpeedRuns
from lvspec_sglang.bench.speed_table import ALONE, rows_of
from lvspec_sglang.bench.timed_server import (
    KEPT,
    RoundClock,
    Simulated,
    judging_share,
    phases_since,
)
from lvspec_sglang.cli import main
from lvspec_sglang.client import Refused
from lvspec_sglang.pairing import check_pair, check_tokenizers
from lvspec_sglang.serving import LocalServer, ServerFailed, share_memory, together
from lvspec_sglang.verify.rule import Kind, Policy, accept


def test_only_what_all_decode_together_is_counted() -> None:
    early = [(0.0, 1), (1.0, 5), (2.0, 9), (3.0, 13)]
    late = [(1.5, 1), (2.5, 5), (3.5, 9), (4.5, 13)]
    assert counted([early]) == (12, 3)
    tokens, seconds = counted([early, late])
    assert seconds == 3.0 - 1.5
    assert tokens == (13 - 5) + (7 - 1)


def test_it_makes_no_difference_which_event_of_a_step_comes_last() -> None:
    one = [(0.0, 1), (1.0, 9), (2.0, 17)]
    other = [(0.0, 1), (1.0, 9), (2.0 + 1e-9, 17), (3.0, 25)]
    assert counted([one, other])[0] == pytest.approx(32)


@pytest.mark.parametrize("other", [[(2.0, 1), (3.0, 9)], [(1.0, 1), (2.0, 2)]])
def test_answers_too_short_to_meet_are_not_measured(other: list[tuple[float, int]]) -> None:
    with pytest.raises(Unmeasured, match=r"ended .* before the last began; .* with --tokens"):
        counted([[(0.0, 1), (1.0, 9)], other])


class Answers:
    """A server whose answers are two tokens, then three more a round; it remembers what it got."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def stream(self, **payload: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(payload)
        for rounds in range(4):
            meta = {"completion_tokens": 2 + 3 * rounds, "prompt_tokens": 7}
            meta |= {"spec_verify_ct": rounds, "spec_num_correct_drafts": 2 * rounds}
            yield {"meta_info": meta}


def test_a_batch_of_one_is_counted_from_its_first_event() -> None:
    server: Any = Answers()
    figures = decode(server, payloads([Asked(Path("clip.mp4"), "what?")], 1, 11), "balanced")
    assert figures["tokens_per_second"] * figures["seconds"] == pytest.approx(9)
    assert (figures["accepted"], figures["prompt_tokens"]) == (2, 7)
    assert server.asked[0]["text"].startswith("<|im_start|>system\n")
    custom = server.asked[0]["sampling_params"]["custom_params"]
    assert custom == {"lvspec": {"preset": "balanced"}}


def test_requests_about_one_clip_share_its_kv() -> None:
    asked = [Asked(Path(f"{number}.mp4"), "what?") for number in range(2)]
    assert kv_tokens(payloads(asked, 3, 100), 1000, 110) == 2 * 1000 + 3 * 110


@pytest.fixture
def make_server() -> Iterator[Callable[..., LocalServer]]:
    with contextlib.ExitStack() as stack:

        def make(*arguments: str, **more: Any) -> LocalServer:
            server = LocalServer(Path("nowhere"), *arguments, **more)
            stack.callback(server.stop)
            return server

        yield make


@pytest.mark.parametrize("count", [2, 3])
def test_servers_side_by_side_share_the_memory(
    make_server: Callable[..., LocalServer], count: int
) -> None:
    servers = [make_server() for _ in range(count)]
    share_memory(servers)
    free, taken = 1.0, []
    for server in servers:
        taken.append(free * float(server.command[-1]))
        free -= taken[-1]
    assert min(taken) > 0.75 / count
    assert free > 0.05


def test_a_fraction_given_is_kept_and_one_server_keeps_the_hosts(
    make_server: Callable[..., LocalServer],
) -> None:
    given, other, one = make_server("--mem-fraction-static=0.3"), make_server(), make_server()
    before = list(one.command)
    share_memory([given, other])
    share_memory([one])
    assert "--mem-fraction-static" not in given.command
    assert other.command[-2:] == ["--mem-fraction-static", "0.850"]
    assert one.command == before


@pytest.mark.parametrize(
    ("on_gpu", "arguments", "one_by_one"),
    [(False, (), False), (True, (), True), (True, ("--max-total-tokens", "4000"), False)],
)
def test_on_a_gpu_a_server_starts_when_the_one_before_it_is_ready(
    make_server: Callable[..., LocalServer], monkeypatch: pytest.MonkeyPatch,
    on_gpu: bool, arguments: tuple[str, ...], one_by_one: bool,
) -> None:  # fmt: skip
    told: list[tuple[str, int]] = []
    servers = [make_server(*arguments), make_server(*arguments)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(LocalServer, "start", lambda self: told.append(("start", self.port)))
    with together(*servers, wait=lambda server: told.append(("ready", server.port))):
        first, second = ([(what, server.port) for what in ("start", "ready")] for server in servers)
    in_turn = [*first, *second]
    assert told == (in_turn if one_by_one else [first[0], second[0], first[1], second[1]])
    assert [("--mem-fraction-static" in server.command) for server in servers] == [on_gpu] * 2


def test_the_environment_says_how_long_a_start_may_take(
    make_server: Callable[..., LocalServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_server(timeout_s=5).timeout_s == 5
    monkeypatch.setenv("LVSPEC_START_TIMEOUT_S", "0")
    server = make_server(timeout_s=5)
    server.command = ["sleep", "60"]
    server.start()
    with pytest.raises(ServerFailed, match="after 0 s; set LVSPEC_START_TIMEOUT_S to wait longer"):
        server.wait_ready()


def test_the_bench_always_drafts_the_same_length(tmp_path: Path) -> None:
    config = '{"keep": 0.2, "draft_length": {"above": 8, "measure": true}}'
    path = tmp_path / "config.json"
    path.write_text(config)
    for given in (config, str(path)):
        told = json.loads(speed.always_drafting(given))
        assert told == {"keep": 0.2, "draft_length": {"above": 8, "measure": False}}
    assert json.loads(speed.always_drafting("{}")) == {"draft_length": {"measure": False}}


def test_what_judging_takes_is_also_in_the_verify_forward() -> None:
    strict = {"verify": 10.0, "accept": 0.1, "round": 30.0}
    relaxed = {"verify": 10.5, "relevance": 0.3, "accept": 0.2, "round": 31.0}
    assert judging_share(strict, relaxed) == pytest.approx(1.0 / 31)
    assert judging_share(strict, strict) is None
    assert judging_share({}, relaxed) is None


def test_a_row_left_out_says_why() -> None:
    phases = {"verify": 10.0, "accept": 1.0, "round": 20.0}
    runs = {
        (side.name, 1): [
            {
                "tokens_per_second": 10.0,
                "seconds": 2.0,
                "accepted": None,
                "prompt_tokens": 9,
                "phases": phases | ({} if side.preset == "strict" else {"relevance": 1.0}),
            }
        ]
        for side in speed.sides("")
    }
    left_out = {(side.name, 4): "too long" for side in speed.sides("")}
    found = rows_of(speed.sides(""), [1, 4], runs, left_out)
    rows = {(row["side"], row["batch"]): row for row in found}
    assert rows["LVSPEC balanced", 1]["judging_share"] == pytest.approx(0.1)
    assert rows["LVSPEC strict", 1]["judging_share"] is None
    assert rows[ALONE, 1]["ms_per_round"] == {}
    assert rows["LVSPEC fast", 4] == {"side": "LVSPEC fast", "batch": 4, "left_out": "too long"}


def test_a_server_that_fails_does_not_take_the_others_rows(
    make_server: Callable[..., LocalServer], tmp_path: Path
) -> None:
    servers = {name: make_server() for name in ("alone", "LVSPEC")}
    for server in servers.values():
        server.command = ["sh", "-c", "echo out of memory; exit 1"]
    runs = SpeedRuns(servers, speed.sides(""), [], [1, 4], tmp_path)
    rows = [measured["rows"] for measured in runs.measure(in_turn=True, repeats=1, own=9)]
    assert [len(so_far) for so_far in rows] == [2, 8]
    assert {row["left_out"] for row in rows[-1]} == {"the server failed"}
    assert len(runs.failed) == 2
    assert all("out of memory" in said for said in runs.failed)


def test_a_side_whose_request_is_refused_does_not_take_the_others_rows(
    make_server: Callable[..., LocalServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(server: LocalServer) -> dict[str, Any]:
        raise Refused("the server refused the request (HTTP 400): too long")

    monkeypatch.setattr(speed_runs, "together", lambda *servers: contextlib.nullcontext())
    monkeypatch.setattr(LocalServer, "info", refused)
    servers = {name: make_server() for name in ("alone", "LVSPEC")}
    runs = SpeedRuns(servers, speed.sides(""), [], [1], tmp_path)
    rows = [measured["rows"] for measured in runs.measure(in_turn=True, repeats=1, own=9)]
    assert {row["left_out"] for row in rows[-1]} == {"the server failed"}
    assert all("HTTP 400): too long" in said for said in runs.failed) and len(runs.failed) == 2


def measured_runs(
    make_server: Callable[..., LocalServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    names: Sequence[str], **more: Any,
) -> SpeedRuns:  # fmt: skip
    """Runs at batch 1 and 2 whose servers answer at once, LVSPEC at twice the speed."""

    def decoded(server: LocalServer, asked: Any, preset: str | None = None) -> dict[str, Any]:
        return {"tokens_per_second": 10.0 if preset is None else 20.0, "seconds": 1.0,
                "accepted": None, "prompt_tokens": 9}  # fmt: skip

    monkeypatch.setattr(speed_runs, "together", lambda *servers: contextlib.nullcontext())
    monkeypatch.setattr(speed_runs, "warm_up", lambda server, asked, preset=None: 9)
    monkeypatch.setattr(speed_runs, "decode", decoded)
    monkeypatch.setattr(speed_runs, "kv_tokens", lambda asked, prompt, own: 0)
    monkeypatch.setattr(LocalServer, "info", lambda self: {"max_total_num_tokens": 100})
    compared = speed.sides("", names)
    servers = {side.server: make_server() for side in compared}
    prompts = payloads([Asked(tmp_path / "clip.mp4", "what?")], 2, 512)
    return SpeedRuns(servers, compared, prompts, [1, 2], tmp_path, **more)


def test_figures_come_run_by_run_and_the_profile_comes_last(
    make_server: Callable[..., LocalServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiled: list[Any] = []

    def idle(server: LocalServer, asked: dict[str, Any], folder: Path) -> dict[str, float]:
        profiled.append(asked["sampling_params"]["custom_params"]["lvspec"]["preset"])
        return {"device_idle": 0.5, "device_idle_over_5_us": 0.25}

    monkeypatch.setattr(speed_runs, "measured_idle", idle)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    runs = measured_runs(make_server, tmp_path, monkeypatch, ["alone", "strict", "fast"])
    told = []
    for measured in runs.measure(in_turn=False, repeats=2, own=9):
        told.append((len(measured["rows"]), list(profiled)))
    assert [rows for rows, _ in told] == [1, 2, 3, 4, 5, 6, *[6] * 7]
    assert [seen for _, seen in told] == [[]] * 12 + [["fast"]]
    row = next(row for row in measured["rows"] if (row["side"], row["batch"]) == ("LVSPEC fast", 1))
    assert (row["times_alone"], row["device_idle"], row["device_idle_over_5_us"]) == (2, 0.5, 0.25)


def test_a_baselines_rows_take_the_place_of_the_target_alone(
    make_server: Callable[..., LocalServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = [{"side": ALONE, "batch": 2 * n + 1, "tokens_per_second": 5.0} for n in (0, 1)]
    runs = measured_runs(make_server, tmp_path, monkeypatch, ["strict"], baseline=saved)
    *_, measured = runs.measure(in_turn=True, repeats=1, own=9)
    rows = {(row["side"], row["batch"]): row for row in measured["rows"]}
    assert list(rows) == [(ALONE, 1), ("LVSPEC strict", 1), ("LVSPEC strict", 2)]
    assert rows[ALONE, 1] == saved[0]
    assert rows["LVSPEC strict", 1]["times_alone"] == 4
    assert rows["LVSPEC strict", 2]["times_alone"] is None


def test_a_simulated_trace_has_the_mean_asked_for() -> None:
    for mean in (0.5, 3.28, 7.76):
        trace = accepted_trace(mean, 10)
        assert abs(sum(trace) / len(trace) - mean) < 0.1
        assert 0 <= min(trace) <= max(trace) <= 10
        runs = [trace[start : start + 58] for start in range(0, 4000, 7)]
        assert all(abs(sum(run) / len(run) - mean) < 0.25 for run in runs)
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
    policy = Policy.of(torch.zeros(3, 9))._replace(limit=torch.tensor([2.0, 2.0, 0.0]))
    rule = Simulated(accept, [1, 2, 2, 0], "cpu")
    verdict = rule(drafted, target, policy, None)
    assert verdict.accept_lens.tolist() == [2, 3, 1]
    assert verdict.tokens[0, :2].tolist() == [1, 11]
    assert verdict.tokens[1].tolist() == [3, 4, 15]
    assert verdict.kinds[0, :2].tolist() == [Kind.MATCH, Kind.TARGET]
    assert verdict.kinds[1].tolist() == [Kind.MATCH, Kind.MATCH, Kind.BONUS]
    assert rule(drafted, target, policy, None).accept_lens.tolist() == [1, 2, 1]


def test_the_clock_writes_rounds_that_have_passed(tmp_path: Path) -> None:
    clock = RoundClock(tmp_path / "times", torch.device("cpu"))
    double = clock.timed("draft", lambda x: 2 * x)
    for batch in range(3 * KEPT):
        start = clock.begin()
        assert double(double(4)) == 16
        clock.end(start, batch % 2)
    lines = [json.loads(line) for line in (tmp_path / "times").read_text().splitlines()]
    assert len(lines) == 2 * KEPT
    assert [line["batch"] for line in lines] == [0, 1] * KEPT
    assert "between" not in lines[0]
    assert all(0 < line["draft"] < line["round"] for line in lines)
    assert all("between" in line for line in lines[1:])


def test_phases_are_those_of_this_runs_whole_batches(tmp_path: Path) -> None:
    before, own = [(2, 9.0)] * (3 + 2 * KEPT), [(1, 5.0), (2, 1.0), (2, 3.0)]
    lines = [json.dumps({"batch": batch, "draft": ms}) for batch, ms in (*before, *own)]
    path = tmp_path / "times"
    assert phases_since(path, 0, batch=2) == {}
    path.write_text("\n".join(lines))
    assert phases_since(path, 3, batch=2) == {"draft": 2.0}


def test_shapes_are_pairs_the_host_can_load(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    folders = {name: write_shape(name, tmp_path) for name in SHAPES}
    configs = {name: AutoConfig.from_pretrained(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        assert shape_of(folder) == SHAPES[name]
        assert not hasattr(configs[name], "lvspec")
    check_pair(configs["32B"], configs["3B"], "32B", "3B")
    check_tokenizers(*(AutoTokenizer.from_pretrained(folders[n]) for n in ("32B", "7B")), "", "")
    billions = {name: shape.weight_bytes / 2e9 for name, shape in SHAPES.items()}
    for name, low, high in (("3B", 2.7, 3.2), ("7B", 6.5, 7.2), ("32B", 31, 33)):
        assert low < billions[name] < high


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "32B", "--draft", "7B"], "the shape 32B needs a CUDA GPU"),
        (["--host-algorithm", "NGRAM"], "needs a CUDA GPU; leave --host-algorithm out"),
        (["--target", "nowhere"], "'nowhere' is neither mini, 3B, 7B, 32B nor a checkpoint"),
        (["--accepted", "12"], "--accepted 12.0: above 0 and below the 10 drafted tokens"),
        (["--sides", "strict,slow"], "--sides slow: not one of alone, strict, balanced, fast"),
        (["--sides", "alone", "--baseline", "x"], "the baseline has it; leave one of them out"),
        (["--baseline", "nowhere.json"], "--baseline nowhere.json: no record of bench speed"),
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
    assert len(rows) == 2 * 2 + 3
    assert all(row["us"] > 0 for row in rows)
    assert [row.get("kernel") or row["kernels"] for row in rows] == ["needs a CUDA GPU"] * 7
