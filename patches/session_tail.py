"""A streaming session hands its next turn no KV of a token that was never fed.

A turn's last token is fed by no forward, unless overlap scheduling had one more round in flight.
The host says how much KV a session holds from the slots it has allocated; with speculation these
reach past the last token, and in its slot lies a rejected draft's KV or nothing. The next turn
would attend to that.
"""

from collections.abc import Callable
from typing import Any

from lvspec_sglang.patches.base import Patch


def keep_computed(original: Callable[..., bool], self: Any, req: Any) -> bool:
    """Keep the turn's record, but for its last token, which the next turn prefills."""
    slot = self.borrowed_slot(req)
    kept = original(self, req)
    if kept:
        fed = len(req.origin_input_ids) + len(req.output_ids) - 1
        slot.kv.kv_committed_len = min(slot.kv.kv_committed_len, fed)
    return kept


PATCHES = (
    Patch(
        "sglang.srt.session.streaming_session.StreamingSession.try_cache_finished_req",
        ("self", "req"),
        keep_computed,
        "AROUND",
        "without overlap scheduling a session's later turns read a rejected draft's KV",
        "the host counts what was computed, not what was allocated",
    ),
)
