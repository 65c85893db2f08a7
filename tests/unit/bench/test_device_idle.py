"""The device's idle share from a profile: gaps between kernels of any stream, round by round."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lvspec_sglang.bench.decoding import Unmeasured
from lvspec_sglang.bench.device_idle import END, device_idle, measured_idle
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


def test_a_profile_without_rounds_is_not_measured() -> None:
    for events in ([], [ran(0, 1)], [ran(0, 1, END), ran(5, 6)]):
        with pytest.raises(Unmeasured, match=f"launches of {END}: no round"):
            device_idle(events)


def test_a_refused_request_is_not_measured(tmp_path: Path) -> None:
    def generate(**payload: Any) -> Any:
        raise Refused("the server refused the request (HTTP 400): too long")

    posted = SimpleNamespace(raise_for_status=lambda: None)
    server = SimpleNamespace(generate=generate, post=lambda path, payload: posted)
    said = measured_idle(server, {"text": "a"}, tmp_path)  # type: ignore[arg-type]
    assert said == "not measured: the server refused the request (HTTP 400): too long"
