"""Unbiased pruning (ParallelVLM's UV-Prune): whose alignment with the text changes early on."""

from typing import ClassVar

import torch
from torch.nn.functional import normalize

from lvspec_sglang.pruning.base import Grid, Keys, Scores, budget


class AlignmentFall:
    """How much each visual token's cosine with the text falls over the early layers.

    ``sum_j cos(V_i, X_j)`` at the first of them minus the same at the last. The sum over text
    tokens is a product with one summed direction, so no token-by-token matrix exists; the visual
    tokens' directions are kept until the prompt is over.
    """

    reads: ClassVar[str] = "hidden"

    def __init__(self, visual: torch.Tensor) -> None:
        self.visual = visual
        self.before = 0  # visual tokens that were prefilled before anybody watched
        self.text: dict[int, torch.Tensor] = {}
        self.seen: dict[int, list[torch.Tensor]] = {}

    @staticmethod
    def layers(depth: int) -> tuple[int, ...]:
        """The first layer and the one a quarter up."""
        return 0, max(1, depth // 4)

    def observe(
        self, layer: int, start: int, vectors: torch.Tensor, keys: Keys | None, scale: float
    ) -> None:
        if not self.seen:
            self.before = int(self.visual[:start].sum())
        visual = self.visual[start : start + len(vectors)]
        directions = normalize(vectors.float(), dim=-1)
        text = directions[~visual].sum(dim=0)
        self.text[layer] = self.text[layer] + text if layer in self.text else text
        self.seen.setdefault(layer, []).append(directions[visual].to(vectors.dtype))

    def of(self, positions: torch.Tensor) -> torch.Tensor:
        first, last = sorted(self.seen)
        order = self.visual.cumsum(0)[positions] - 1 - self.before
        early, late = (torch.cat(self.seen[layer])[order].float() for layer in (first, last))
        return early @ self.text[first] - late @ self.text[last]


class AlignmentChange:
    """Keeps the tokens whose alignment with the text falls most over the early layers.

    Attention is not asked, as it favours some positions whatever they show (arXiv 2603.19610). The
    direction of the change is ours, by measurement: on the mini pair those that rise most, or
    change most either way, serve the draft worse than evenly spaced ones.
    """

    scores: ClassVar[type[Scores] | None] = AlignmentFall

    def choose(self, grid: Grid, keep: float, scores: torch.Tensor | None) -> torch.Tensor:
        assert scores is not None and len(scores) == grid.tokens, f"{grid.tokens} scores wanted"
        return scores.topk(budget(grid.tokens, keep)).indices.sort().values
