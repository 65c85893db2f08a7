"""``meta_info`` says how a request's tokens were committed: counts, and the trace if asked for.

The host passes an algorithm's own entries through as one list an entry a token; this turns them
into the counts everybody wants and the table few ask for.
"""

from collections.abc import Callable
from typing import Any

from lvspec_sglang.metrics import INFO_KEY, summarise
from lvspec_sglang.patches.base import Patch


def update_meta_info(
    update: Callable[..., None],
    self: Any,
    meta_info: dict[str, Any],
    state: Any,
    customized_info: dict[str, Any],
    index: int,
    finish_reason: dict[str, Any] | None,
) -> None:
    """Let the host accumulate, then replace the raw entries by their summary."""
    update(self, meta_info, state, customized_info, index, finish_reason)
    entries = meta_info.pop(INFO_KEY, None)
    state.customized_info_reported_keys.discard(INFO_KEY)
    if entries:
        meta_info.update(summarise(entries, finished=finish_reason is not None))


PATCHES = (
    Patch(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager.update_request_meta_info",
        ("self", "meta_info", "state", "customized_info", "index", "finish_reason"),
        update_meta_info,
        "AROUND",
        "every answer would carry a raw number a token",
        "the host lets an algorithm summarise its customized_info",
    ),
)
