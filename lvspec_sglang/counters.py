"""LVSPEC's Prometheus counters, each made when it is first counted.

prometheus_client decides at its import where figures go, so the host imports it only after saying
so. Were it imported with a plugin, the host's own figures of that process would be lost.
"""

import functools
from typing import Any

DESCRIPTIONS = {
    "tokens": "Tokens committed, by the reason they were committed",
    "draft_prefill_tokens": "Prompt tokens whose KV the draft computed",
    "draft_encodes": "Videos and pictures the draft's vision tower encoded",
    "choices": "Videos whose kept tokens were chosen, by the pruner",
    "video_encodes": "Videos encoded by any vision tower, the target's or the draft's",
    "frames_decoded": "Video frames decoded for prompts",
}


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Raise ``lvspec_<name>_total`` by ``amount``; a name always comes with the same labels."""
    counter = _counter(name, tuple(labels))
    (counter.labels(**labels) if labels else counter).inc(amount)


@functools.cache
def _counter(name: str, labels: tuple[str, ...]) -> Any:
    from prometheus_client import Counter

    return Counter(f"lvspec_{name}", DESCRIPTIONS[name], labels)
