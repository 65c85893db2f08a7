"""LVSPEC's Prometheus metrics, each made when it is first used.

prometheus_client decides at its import where figures go, so the host imports it only after saying
so. Were it imported with a plugin, the host's own figures of that process would be lost.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One metric: ``type`` as Prometheus has it; a name always comes with the same labels."""

    type: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    def full_name(self, name: str) -> str:
        """The name it is served by."""
        return f"lvspec_{name}_total" if self.type == "counter" else f"lvspec_{name}"


METRICS = {
    "tokens": Metric(
        "counter", ("kind",), "Tokens committed, by the reason they were committed"
    ),
    "rounds": Metric("counter", ("decoding",), "Rounds of each request, by how they were decoded"),
    "drafted_tokens": Metric("counter", (), "Tokens drafted"),
    "accept_length": Metric(
        "histogram", (), "Tokens committed by a drafted round of a request",
        (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 33),
    ),
    "relevance": Metric(
        "histogram", (), "Visual relevance of the drafted positions decided in relaxed requests",
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5),
    ),
    "threshold": Metric(
        "gauge", (), "Relevance up to which a position is loose, mean of the last relaxed round"
    ),
    "visual_tokens": Metric(
        "counter", ("draft",), "Visual tokens of prompts, by whether the draft keeps them"
    ),
    "shared_prefix_groups": Metric(
        "histogram", (), "Requests with one video in the cache, for each video of a drafted round",
        (1, 2, 4, 8, 16, 32, 64, 128),
    ),
    "draft_prefill_tokens": Metric(
        "counter", (), "Tokens whose KV the draft prefilled: prompts, and what it missed"
    ),
    "draft_prefill_seconds": Metric(
        "histogram", (), "Time the draft took to prefill what a round needed",
        (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
    ),
    "draft_encodes": Metric(
        "counter", (), "Videos and pictures the draft's vision tower encoded"
    ),
    "choices": Metric(
        "counter", ("pruner",), "Videos whose kept tokens were chosen, by the pruner"
    ),
    "video_encodes": Metric(
        "counter", (), "Videos encoded by a Qwen vision tower, the target's or the draft's"
    ),
    "frames_decoded": Metric("counter", (), "Video frames decoded for prompts"),
}  # fmt: skip

_silent = False


def silence() -> None:
    """Count nothing in this process: another rank of its group does the same and counts it."""
    global _silent
    _silent = True


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Raise the counter ``name``."""
    if not _silent:
        metric = _made(name)
        (metric.labels(**labels) if labels else metric).inc(amount)


def observe(name: str, values: Iterable[float]) -> None:
    """Add ``values`` to the histogram ``name``."""
    if not _silent:
        for value in values:
            _made(name).observe(value)


def set_gauge(name: str, value: float) -> None:
    """Set the gauge ``name``."""
    if not _silent:
        _made(name).set(value)


def snapshot() -> dict[str, float]:
    """Every sample of this process by the name it is served by, labels included."""
    values = {}
    for name in _in_use:
        for family in _made(name).collect():
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
                if not sample.name.endswith("_created"):
                    values[sample.name + (labels and f"{{{labels}}}")] = sample.value
    return values


_in_use: list[str] = []


@functools.cache
def _made(name: str) -> Any:
    import prometheus_client

    metric, prefixed = METRICS[name], f"lvspec_{name}"
    _in_use.append(name)
    if metric.type == "histogram":
        return prometheus_client.Histogram(prefixed, metric.help, buckets=metric.buckets)
    if metric.type == "gauge":
        return prometheus_client.Gauge(prefixed, metric.help, multiprocess_mode="mostrecent")
    return prometheus_client.Counter(prefixed, metric.help, metric.labels)
