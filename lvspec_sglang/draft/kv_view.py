"""Which KV slots the draft may attend to, and which of them it has really written.

Target and draft share the allocator's slot ids, each with its own buffers. The draft reads through
a private request table whose row lists, in order, the slots of the positions it keeps. A request
remembers kept *positions*: the radix cache may swap a request's slots for its own duplicates, so
the draft's row is gathered anew from the target's row before every use.
"""

import torch


class DraftKVView:
    """The draft's request table and the validity of its KV, all on the device.

    Attributes:
        valid: ``[slots]`` bool; the draft wrote KV there since the slot was last given out.
        lagging: ``[rows]`` bool; the last round accepted every drafted token, so the draft has
            no KV yet for the last committed one.
        last_token: ``[rows]`` int64; that token.
        rope_delta: ``[rows]`` int64; M-RoPE position minus sequence position, after the prompt.
    """

    def __init__(self, target_table: torch.Tensor, draft_table: torch.Tensor, slots: int) -> None:
        """Wrap the two request tables, ``[rows, width]`` each; ``slots`` is the KV pool's size."""
        assert target_table.shape == draft_table.shape, (
            f"target and draft request tables differ: {target_table.shape}, {draft_table.shape}"
        )
        rows, self.width = target_table.shape
        device = target_table.device
        self.target_table = target_table
        self.draft_table = draft_table
        self.kept = torch.arange(self.width, device=device).repeat(rows, 1)
        self.dropped = torch.zeros(rows, dtype=torch.int64, device=device)
        self.valid = torch.zeros(slots, dtype=torch.bool, device=device)
        self.lagging = torch.zeros(rows, dtype=torch.bool, device=device)
        self.last_token = torch.zeros(rows, dtype=torch.int64, device=device)
        self.rope_delta = torch.zeros(rows, dtype=torch.int64, device=device)

    def begin(self, row: int, kept: torch.Tensor, prompt_len: int, rope_delta: int) -> None:
        """Start a request in ``row``: the draft keeps positions ``kept`` of its prompt.

        Args:
            row: row of the request in both tables.
            kept: ascending prompt positions, ``[n]`` int64; everything after the prompt is kept.
                None at all for a request the draft does not follow.
            prompt_len: number of prompt tokens.
            rope_delta: M-RoPE position minus sequence position, after the prompt.
        """
        count = len(kept)
        dropped = prompt_len - count
        assert dropped >= 0, f"kept {count} of {prompt_len} prompt positions"
        self.kept[row, :count] = kept
        tail = torch.arange(prompt_len, self.width + dropped, device=self.kept.device)
        self.kept[row, count:] = tail.clamp_(max=self.width - 1)
        self.dropped[row].fill_(dropped)
        self.lagging[row].fill_(False)
        self.rope_delta[row].fill_(rope_delta)

    def gather(self, rows: torch.Tensor, width: int) -> None:
        """Rewrite the first ``width`` columns of the draft's ``rows`` from the target's rows."""
        kept = self.kept[rows, :width]
        self.draft_table[rows, :width] = self.target_table[rows[:, None], kept]

    def lengths(self, rows: torch.Tensor, seq_lens: torch.Tensor) -> torch.Tensor:
        """How many of each row's first ``seq_lens`` tokens the draft keeps, ``[batch]``."""
        return seq_lens - self.dropped[rows]

    def slots(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Target slots of ``positions``, ``[batch, ...]``, same shape, int64.

        A chain at the end of the context may reach beyond the table, where nothing is committed.
        """
        inside = positions.clamp(max=self.width - 1)
        return self.target_table[rows.view(-1, *[1] * (positions.ndim - 1)), inside].long()

    def first_stale(self, row: int, count: int) -> int:
        """Index of the first of the row's first ``count`` kept tokens without draft KV, or count.

        Reads the device: call it before a round's chain, never inside.
        """
        stale = ~self.valid[self.draft_table[row, :count].long()]
        return int(stale.int().argmax()) if bool(stale.any()) else count

    def invalidate(self, slots: torch.Tensor) -> None:
        """The target wrote ``slots`` (any shape): what the draft had there is another's."""
        self.valid.index_fill_(0, slots.flatten().long(), False)

    def mark_written(self, slots: torch.Tensor) -> None:
        """The draft wrote KV into ``slots`` (any shape)."""
        self.valid.index_fill_(0, slots.flatten().long(), True)

    def settle(self, rows: torch.Tensor, drafted: torch.Tensor, accept_lens: torch.Tensor) -> None:
        """End a round: note whose chain, ``[batch, K]``, was accepted whole."""
        self.lagging[rows] = accept_lens > drafted.shape[1]
        self.last_token[rows] = drafted[:, -1]

    def check_logits(self, logits: torch.Tensor) -> None:
        """For a debug mode to see draft logits, ``[batch, vocab]``, before they are used."""

    def clear(self) -> None:
        """Forget everything: the KV pools were flushed."""
        self.valid.zero_()
        self.lagging.zero_()
