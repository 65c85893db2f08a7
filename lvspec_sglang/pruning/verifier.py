"""Verifier-guided pruning (SpecVLM): what the target's own text queries look at."""

from typing import ClassVar

import torch

from lvspec_sglang.pruning.base import Grid, Keys, Scores, budget

MASS = 0.4
MAX_LOGITS = 1 << 24


class AttentionReceived:
    """Attention that each token receives from the prompt's text, summed over queries and layers."""

    reads: ClassVar[str] = "attention"

    def __init__(self, visual: torch.Tensor) -> None:
        self.visual = visual
        self.received = torch.zeros(len(visual), dtype=torch.float32, device=visual.device)
        positions = visual.nonzero()
        self.first = int(positions[0]) if len(positions) else len(visual)
        self.part = 0, 0
        self.asking = positions[:0, 0]

    @staticmethod
    def layers(depth: int) -> tuple[int, ...]:
        return tuple(range(depth))

    def observe(
        self, layer: int, start: int, vectors: torch.Tensor, keys: Keys | None, scale: float
    ) -> None:
        assert keys is not None, "attention scores need keys"
        stop = start + len(vectors)
        if self.part != (start, stop):
            asking = ~self.visual[start:stop]
            asking[: max(0, self.first - start)] = False  # what precedes the video cannot see it
            # Waits for the device: once a chunk, not once a layer.
            self.part, self.asking = (start, stop), asking.nonzero()[:, 0]
        if len(self.asking):
            positions = self.asking + start
            received = attention_received(vectors[self.asking], keys(), positions, scale)
            self.received[:stop] += received

    def of(self, positions: torch.Tensor) -> torch.Tensor:
        return self.received[positions]


def attention_received(
    queries: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention probability on each key, mean over heads, sum over queries.

    Works in blocks of queries, so that at most ``MAX_LOGITS`` logits exist at once.

    Args:
        queries: ``[queries, heads, dim]``.
        keys: ``[keys, kv_heads, dim]``; key i is at position i.
        positions: of the queries, ``[queries]`` int64.
        scale: of the logits.

    Returns:
        ``[keys]`` float32.
    """
    (heads, dim), (count, kv_heads, _) = queries.shape[1:], keys.shape
    grouped = queries.float().view(-1, kv_heads, heads // kv_heads, dim)
    keys = keys.float()
    later = torch.arange(count, device=keys.device)
    received = torch.zeros(count, dtype=torch.float32, device=keys.device)
    block = max(1, MAX_LOGITS // (heads * count))
    for q, position in zip(grouped.split(block), positions.split(block), strict=True):
        logits = torch.einsum("qkgd,nkd->kgqn", q, keys) * scale
        logits.masked_fill_(later > position[:, None], float("-inf"))
        received += logits.softmax(dim=-1).sum(dim=2).mean(dim=(0, 1))
    return received


class VerifierGuided:
    """Keeps the tokens most attended to, until they hold 40 % of the attention on the video, and
    fills the budget with evenly spaced ones of the rest (SpecVLM, arXiv 2508.16201)."""

    scores: ClassVar[type[Scores] | None] = AttentionReceived

    def choose(self, grid: Grid, keep: float, scores: torch.Tensor | None) -> torch.Tensor:
        assert scores is not None and len(scores) == grid.tokens, f"{grid.tokens} scores wanted"
        kept = budget(grid.tokens, keep)
        falling = scores.sort(descending=True, stable=True)
        before = falling.values.cumsum(0) - falling.values
        top = (before < MASS * scores.sum())[:kept].sum().clamp(min=1)
        rank = torch.empty_like(falling.indices)
        rank[falling.indices] = torch.arange(grid.tokens, device=scores.device)
        best = rank < top
        # Spread ``kept - top`` picks over the rest, without waiting for the device to know top.
        place = (~best).cumsum(0) - 1
        picks, rest = kept - top, (grid.tokens - top).clamp(min=1)
        spread = (place + 1) * picks // rest > place * picks // rest
        chosen = best | (~best & spread)
        return chosen.int().topk(kept).indices.sort().values
