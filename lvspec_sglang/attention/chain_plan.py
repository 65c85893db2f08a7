"""Which slots the attention of a verify forward reads, split at the visual tokens.

Every query of a chain attends to all that is committed and causally to the chain. The committed
tokens come in two parts: the visual ones, which requests on one video may share, and the rest,
which ends in the chain itself. Visual tokens stand in the prompt, so all queries see all of them
(no mask), and the rest keeps its order with the chain at its end, so that a causal mask aligned at
the end is right. All lengths are known on the host; only slots are read on the device.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch


class Context(NamedTuple):
    """What of a request in a verify forward is known on the host.

    Attributes:
        row: its row in the request table.
        spans: prompt positions ``[start, stop)`` of visual tokens, ascending.
        prefix: equal for requests whose slots are the same up to their last visual token; None
            where that is not known.
    """

    row: int
    spans: tuple[tuple[int, int], ...] = ()
    prefix: Hashable = None

    @property
    def visual_tokens(self) -> int:
        return sum(stop - start for start, stop in self.spans)


class Part(NamedTuple):
    """One attention call: queries and keys, entry after entry.

    Attributes:
        qo_lens: queries of each entry.
        kv_lens: keys of each entry.
        segments: (row, start, length) of each run of keys in the request table, in order.
    """

    qo_lens: list[int]
    kv_lens: list[int]
    segments: list[tuple[int, int, int]]


class Split(NamedTuple):
    """The two parts of a verify forward.

    Attributes:
        video: an entry for each group of requests on one video, or for a request alone; entries
            without queries fill it up to the batch size.
        rest: an entry for each request.
        members: requests in the order of the video part's queries.
    """

    video: Part
    rest: Part
    members: list[int]


def groups(contexts: Sequence[Context]) -> list[list[int]]:
    """Requests that read one video together, in order of first appearance."""
    found: dict[Hashable, list[int]] = {}
    for i, context in enumerate(contexts):
        shared = context.prefix is not None and context.visual_tokens > 0
        found.setdefault((context.prefix, context.spans) if shared else i, []).append(i)
    return list(found.values())


def readers(contexts: Sequence[Context]) -> list[int]:
    """How many requests read each video, or each request's videos, in order of appearance."""
    return [len(group) for group in groups(contexts) if contexts[group[0]].spans]


def saved_tokens(contexts: Sequence[Context]) -> int:
    """Tokens whose KV a layer reads less where requests on one video read it together."""
    return sum((len(group) - 1) * contexts[group[0]].visual_tokens for group in groups(contexts))


def whole(contexts: Sequence[Context], seq_lens: Sequence[int], width: int) -> Part:
    """Plain attention: every request's committed tokens and its chain of ``width``."""
    lens = [seq_len + width for seq_len in seq_lens]
    segments = [(c.row, 0, n) for c, n in zip(contexts, lens, strict=True)]
    return Part([width] * len(lens), lens, segments)


def split(contexts: Sequence[Context], seq_lens: Sequence[int], width: int) -> Split:
    """Attention in two parts, videos read together where requests share them.

    Args:
        seq_lens: committed length of each request.
        width: tokens of each chain.
    """
    together = groups(contexts)
    first = [contexts[group[0]] for group in together]
    idle = [0] * (len(contexts) - len(together))
    video = Part(
        [width * len(group) for group in together] + idle,
        [context.visual_tokens for context in first] + idle,
        [(c.row, start, stop - start) for c in first for start, stop in c.spans],
    )
    rest = Part([], [], [])
    for context, seq_len in zip(contexts, seq_lens, strict=True):
        assert not context.spans or context.spans[-1][1] <= seq_len, (
            f"visual tokens up to {context.spans[-1][1]} in a context of {seq_len}"
        )
        edges = [0, *(edge for span in context.spans for edge in span), seq_len + width]
        runs = [
            (context.row, start, stop - start)
            for start, stop in zip(edges[::2], edges[1::2], strict=True)
            if stop > start
        ]
        rest.qo_lens.append(width)
        rest.kv_lens.append(sum(length for _, _, length in runs))
        rest.segments.extend(runs)
    return Split(video, rest, [i for group in together for i in group])


def indptr(lens: Sequence[int]) -> torch.Tensor:
    """Where each entry starts and the last one ends, ``[entries + 1]`` int32 on the host."""
    return torch.tensor([0, *lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)


def slots_of(table: torch.Tensor, segments: torch.Tensor, total: int) -> torch.Tensor:
    """The slots of runs of the request table, ``[total]`` int32, without synchronising.

    A chain at the end of the context may reach beyond the table, where nothing is committed.

    Args:
        table: ``[rows, width]``.
        segments: row, start and length of each run, ``[3, runs]`` int64 on the table's device.
        total: sum of the lengths, known on the host.
    """
    rows, starts, lens = segments
    runs = torch.arange(len(lens), device=table.device)
    run = torch.repeat_interleave(runs, lens, output_size=total)
    offset = torch.arange(total, device=table.device) - (lens.cumsum(0) - lens)[run]
    inside = (starts[run] + offset).clamp(max=table.shape[1] - 1)
    return table[rows[run], inside].int()
