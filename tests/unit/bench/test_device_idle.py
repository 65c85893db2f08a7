"""The device's idle share from a profile: gaps between kernels of any stream, round by round."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lvspec_sglang.bench.decoding import Unmeasured
from lvspec_sglang.bench.device_idle import END, TOKENS, Idle, device_idle, measured_idle
from lvspec_sglang.client import Refused


def ran(start: float, stop: float, name: str = "gemm", cat: str = "kernel") -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": stop - start}


def test_only_gaps_in_which_nothing_runs_are_idle() -> None:
    events = [
        ran(95, 100, END),
        ran(110, 150),  # 10 idle before it
        ran(130, 160, cat="gpu_memcpy"),  # beside it on another stream
        ran(155, 158),
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 160, "dur": 30},
        ran(190, 200, END),  # 30 idle before it
    ]
    assert device_idle(events) == pytest.approx(0.4)
    assert device_idle(events[::-1]) == pytest.approx(0.4)


def test_of_several_rounds_it_is_the_median() -> None:
    starts, idle = (0, 100, 200, 300), (50, 10, 20)
    events = [ran(at, at + 1, END) for at in starts]
    events += [ran(at + 1 + gap, at + 100) for at, gap in zip(starts, idle, strict=False)]
    assert device_idle(events) == pytest.approx(0.2)


def test_short_gaps_are_the_captured_graphs() -> None:
    events = [ran(0, 1, END), ran(3, 50), ran(52, 60), ran(80, 100), ran(100, 101, END)]
    assert device_idle(events) == pytest.approx(0.24)
    assert device_idle(events, longer_us=5) == pytest.approx(0.2)


def test_a_gap_may_lie_across_the_end_of_a_round() -> None:
    gaps = Idle([(10, 30), (50, 60)])
    assert [gaps.until(at) for at in (5, 10, 20, 30, 40, 55, 70)] == [0, 0, 10, 20, 20, 25, 30]


def test_a_profile_without_rounds_is_not_measured() -> None:
    for events in ([], [ran(0, 1)], [ran(0, 1, END), ran(5, 6)]):
        with pytest.raises(Unmeasured, match=f"launches of {END}: no round"):
            device_idle(events)


def test_a_refused_request_is_not_measured(tmp_path: Path) -> None:
    generated: list[int] = []

    def generate(**payload: Any) -> Any:
        generated.append(payload["sampling_params"]["max_new_tokens"])
        raise Refused("the server refused the request (HTTP 400): too long")

    posted = SimpleNamespace(raise_for_status=lambda: None)
    server = SimpleNamespace(generate=generate, post=lambda path, payload: posted)
    asked: dict[str, Any] = {"text": "a", "sampling_params": {"max_new_tokens": 512}}
    said = measured_idle(server, asked, tmp_path)  # type: ignore[arg-type]
    refused = "not measured: the server refused the request (HTTP 400): too long"
    assert said == {"device_idle": refused}
    assert (generated[0], asked["sampling_params"]["max_new_tokens"]) == (TOKENS, 512)
