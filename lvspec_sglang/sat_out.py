"""What was committed while the draft sat out.

A plain round writes the target's KV only. What the target is fed is remembered on the device;
before a request's next drafted round the draft prefills, with its prompt, everything of its context
that it has not written: the slots' validity says from where.
"""

from collections.abc import Sequence
from typing import Any

import torch

from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.draft.model import Prompt


class SatOut:
    """The text of every row, and the rows whose draft context may lack some of it."""

    def __init__(self, view: DraftKVView) -> None:
        self.view = view
        self.text = torch.zeros_like(view.kept)
        self.late: set[int] = set()

    def remember(self, rows: torch.Tensor, positions: torch.Tensor, chain: torch.Tensor) -> None:
        """The target is fed ``chain``, ``[batch, n]``, at ``positions``, same shape."""
        self.text[rows[:, None], positions.clamp(max=self.view.width - 1)] = chain

    def note(self, rows: Sequence[int]) -> None:
        """The draft does not take part in a round of ``rows``."""
        self.late.update(rows)

    def prompts(
        self, rows: Sequence[int], seq_lens: torch.Tensor, followed: dict[int, Any]
    ) -> dict[int, Prompt]:
        """Of those ``rows`` that sat out since they were last asked for, the whole context.

        Waits for the device if there are any: it happens once for many plain rounds.

        Args:
            seq_lens: committed lengths, ``[batch]``.
            followed: by row, what has the prompt of its request.
        """
        if self.late.isdisjoint(rows):
            return {}
        whole = {}
        for row, length in zip(rows, seq_lens.tolist(), strict=True):
            if row in self.late and row in followed:
                prompt: Prompt = followed[row].prompt
                given = len(prompt.ids)
                whole[row] = prompt._replace(
                    ids=torch.cat([prompt.ids, self.text[row, given:length]]),
                    kept=self.view.kept[row, : length - given + len(prompt.kept)],
                )
                self.view.lagging[row].fill_(False)
        self.late.difference_update(rows)
        return whole
