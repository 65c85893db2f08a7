"""Relevance as the paper has it: cosine of a query's hidden state with those of the video.

``A = mean of the N largest cos(h, H_V)``, N = 10 (LVSpec, arXiv 2604.05650, second hand; which
layer is not published). H_V lies in a pool with one row a KV slot, written whenever the target
prefills and read through the requests' slots, so that it follows the radix cache as KV does.
"""

import torch
from torch.nn.functional import normalize

TOP = 10
BLOCK = 4096


class CosineTop:
    """Mean of the ``TOP`` largest cosines with visual tokens, of the states that enter one layer.

    ``attach`` comes first; then ``remember`` takes prefilled tokens and ``hear`` verified ones.
    """

    reads = "hidden"
    pool: torch.Tensor

    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers = layers[:1]
        self.listening = False

    def attach(
        self,
        slots: int,
        hidden: int,
        queries: int,
        dtype: torch.dtype,
        table: torch.Tensor,
        visual: torch.Tensor,
    ) -> None:
        """Make room for ``slots`` tokens and ``queries`` verified ones of ``hidden`` numbers.

        Args:
            table: the target's request table, ``[rows, width]`` int32.
            visual: ``[rows, width]`` bool, which positions hold visual tokens.
        """
        self.pool = torch.zeros(slots, hidden, dtype=dtype, device=table.device)
        self._queries = torch.zeros(queries, hidden, dtype=dtype, device=table.device)
        self._table, self._visual = table, visual

    def remember(self, slots: torch.Tensor, hidden: torch.Tensor) -> None:
        """Keep the hidden states of prefilled tokens, ``[tokens, hidden]``, under their slots."""
        self.pool[slots] = normalize(hidden.float(), dim=-1).to(self.pool.dtype)

    def hear(self, hidden: torch.Tensor) -> None:
        """Take the hidden states of a verify forward, ``[queries, hidden]``."""
        self._queries[: len(hidden)] = normalize(hidden.float(), dim=-1).to(self.pool.dtype)

    def observe(self, mass: torch.Tensor, focus: torch.Tensor) -> None:
        """Attention is not read."""

    def scores(self, rows: torch.Tensor, width: int, reach: int) -> torch.Tensor:
        queries = self._queries[: len(rows) * width].view(len(rows), width, -1)
        best = queries.new_full((len(rows), width, TOP), float("-inf"), dtype=torch.float32)
        for start in range(0, reach, BLOCK):
            part = slice(start, min(start + BLOCK, reach))
            keys = self.pool[self._table[rows, part].long()]
            cosine = (queries @ keys.transpose(1, 2)).float()
            cosine = cosine.masked_fill(~self._visual[rows, part][:, None], float("-inf"))
            best = torch.cat([best, cosine], dim=2).topk(TOP, dim=2).values
        found = best > float("-inf")
        return best.masked_fill(~found, 0.0).sum(dim=2) / found.sum(dim=2).clamp(min=1)
