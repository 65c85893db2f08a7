"""``/server_info`` tells LVSPEC's own figures with the host's.

The host asks its algorithms for nothing of their own, except one of them by name.
"""

from typing import Any

from lvspec_sglang.patches.base import Patch


def add_figures(result: None, self: Any, state: dict[str, Any]) -> None:
    """Put the worker's figures under ``lvspec``."""
    state["lvspec"] = self.scheduler.draft_worker.figures()


PATCHES = (
    Patch(
        "sglang.srt.managers.scheduler_components.internal_state.SchedulerInternalStateController"
        "._add_speculative",
        ("self", "state"),
        add_figures,
        "AFTER",
        "LVSPEC's figures are in Prometheus only",
        "the host lets an algorithm add to its internal state",
    ),
)
