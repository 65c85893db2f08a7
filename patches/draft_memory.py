"""The KV pool's size leaves room for what LVSPEC keeps beside the target's KV.

The host counts a draft's KV per token as if a draft layer were a target layer. A draft with larger
heads than the target's would not fit; one with smaller heads, the usual case, wastes memory. Nor
does it know of our tables. Here the draft's part is counted from the draft's own configuration,
with what else each slot and each request row costs.
"""

from typing import Any

import torch

from lvspec_sglang.config_json import server_config
from lvspec_sglang.patches.base import Patch

# Per position of a row: kept positions and the text fed (int64), the draft's slots (int32), the
# visual mask (bool).
ROW_BYTES = 8 + 8 + 4 + 1
VALID_BYTES = 1


def slot_bytes(target: Any, draft: Any, tp_size: int, element: int) -> int:
    """What a KV slot costs beside the target's KV, in bytes.

    A pruned draft needs a slot a token all the same: it shares the target's slot ids.

    Args:
        target, draft: the host's model configurations; no draft for self-speculation.
        tp_size: ranks the KV heads are split over.
        element: bytes of a KV element.
    """
    draft_kv = 0
    if draft is not None:
        vector = draft.head_dim + draft.v_head_dim
        draft_kv = VALID_BYTES + (
            draft.get_num_kv_heads(tp_size) * vector * draft.num_hidden_layers * element
        )
    hidden = target.hidden_size * torch._utils._element_size(target.dtype)
    return draft_kv + (hidden if server_config().relevance == "cosine" else 0)


def count_everything(result: Any, self: Any, kvc: Any) -> Any:
    """Correct the bytes a token and the bytes at once of the target's pool."""
    from sglang.srt.runtime_context import get_parallel, get_schedule

    if kvc.is_draft_worker:
        return result
    element = torch._utils._element_size(kvc.kv_cache_dtype)
    draft = kvc.spec_aux_config.draft_model_config
    self._cell_size = self._compute_cell_size(kvc, kvc.layer_info.num_effective_layers)
    self._cell_size += slot_bytes(kvc.model_config, draft, get_parallel().attn_tp_size, element)
    rows = get_schedule().max_running_requests or 0
    self._fixed_overhead_bytes += rows * kvc.model_config.context_len * ROW_BYTES
    return result


PATCHES = (
    Patch(
        "sglang.srt.model_executor.pool_configurator.DefaultPoolConfigurator.__init__",
        ("self", "kvc"),
        count_everything,
        "AFTER",
        "the draft's KV is counted by the target's heads, and the draft's tables not at all",
        "the host asks an algorithm what a KV slot costs",
    ),
)
