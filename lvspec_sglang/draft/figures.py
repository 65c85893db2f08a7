"""What the draft's context costs, counted for Prometheus."""

from prometheus_client import Counter

PREFILLED = Counter("lvspec_draft_prefill_tokens", "Prompt tokens whose KV the draft computed")
ENCODED = Counter("lvspec_draft_encodes", "Videos and pictures the draft's vision tower encoded")
CHOSEN = Counter(
    "lvspec_choices", "Videos whose kept tokens were chosen, by the pruner", ["pruner"]
)
