"""Which prompt positions the draft keeps: chosen once for each video, then remembered.

Videos are pruned, pictures and text never. A choice is made at the end of the prefill that brings
a new video, guided by that prompt, and shared by every later turn and user: they find the video's
KV in the radix cache, and the draft's KV of it with it.
"""

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from sglang.srt.runtime_context import get_parallel

from lvspec_sglang.config import LVSpecConfig
from lvspec_sglang.counters import count
from lvspec_sglang.draft.prefill_watch import PrefillWatch
from lvspec_sglang.draft.vision import Span, VisionFamily, visible_spans
from lvspec_sglang.pruning import PRUNERS, Grid, Pruner
from lvspec_sglang.pruning.none import Whole
from lvspec_sglang.pruning.uniform import Uniform

logger = logging.getLogger(__name__)

NAMES = {pruner: name for name, pruner in PRUNERS.items()}


class KeptTable:
    """Kept indices of recent videos, keyed by content, least recently used out first."""

    def __init__(self, limit_tokens: int) -> None:
        """Remember videos of at most ``limit_tokens`` tokens in all, kept or not."""
        self.limit = limit_tokens
        self.tokens = 0
        self._kept: OrderedDict[Hashable, tuple[int, torch.Tensor]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> torch.Tensor | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def put(
        self, key: Hashable, tokens: int, kept: torch.Tensor, pinned: Collection[Hashable]
    ) -> None:
        """Remember ``kept`` of a video of ``tokens``; ``pinned`` keys are not forgotten for it."""
        assert key not in self._kept, f"{key} was chosen already"
        self._kept[key] = tokens, kept
        self.tokens += tokens
        idle = [k for k in self._kept if k != key and k not in pinned]
        while self.tokens > self.limit and idle:
            self.tokens -= self._kept.pop(idle.pop(0))[0]

    def clear(self) -> None:
        self._kept.clear()
        self.tokens = 0


class Kept(NamedTuple):
    """What the draft keeps of a prompt.

    Attributes:
        positions: ascending, ``[n]`` int64.
        chosen: positions of the videos that were chosen from just now, kept or not, int64. Draft KV
            that is there already belongs to another choice.
    """

    positions: torch.Tensor
    chosen: torch.Tensor


class KeptTokens:
    """Chooses and remembers what the draft keeps of each video.

    A new video whose prefill was not seen is kept evenly, which needs no scores: a captured graph
    ran it, or the radix cache had it and the pruner reads what a prefill alone tells.
    """

    def __init__(self, config: LVSpecConfig, runner: Any, family: VisionFamily) -> None:
        """Choose as ``config`` says for the target ``runner``, whose pools exist."""
        self.pruner: Pruner = PRUNERS[config.pruning]()
        self.keep = config.keep
        self.at_least = config.keep_at_least
        self.family = family
        # A video that the radix cache still holds was used more recently than any of as many
        # tokens as the pool has slots; twice that is never forgotten before it is evicted.
        self.table = KeptTable(2 * runner.max_total_num_tokens)
        self.device = runner.device
        self.watch = None
        if self.pruner.scores is not None:
            decoder = family.language_model(runner.model)
            self.watch = PrefillWatch(self.pruner.scores, runner, decoder)

    def watching(
        self, reqs: Sequence[Any], eligible: Callable[[Any], bool]
    ) -> contextlib.AbstractContextManager[None]:
        """Around the target's prefill of ``reqs``: see by what to choose from new videos.

        Args:
            eligible: whether a request's videos may be drafted from.
        """
        if self.watch is None:
            return contextlib.nullcontext()
        return self.watch.prefill(reqs, lambda req: self._new(req) if eligible(req) else None)

    def videos(self, mm_inputs: Any, spans: Sequence[Span]) -> list[tuple[Hashable, list[Span]]]:
        """Content and spans of each video to prune; equal contents have equal token counts."""
        if isinstance(self.pruner, Whole):
            return []
        found: list[list[Span]] = []
        for span in spans:
            if not mm_inputs.mm_items[span.item].is_video():
                continue
            # A family may hand over each frame as an item of its own, one after the other.
            last = found[-1][-1] if found else None
            if last and (span.item == last.item or span.start - last.stop <= self.family.spill):
                found[-1].append(span)
            else:
                found.append([span])
        return [
            ((*(mm_inputs.mm_items[part.item].hash for part in parts), _tokens(parts)), parts)
            for parts in found
            if _tokens(parts) > self.at_least
        ]

    def positions(
        self, req: Any, spans: Sequence[Span], length: int, pinned: Collection[Hashable]
    ) -> Kept:
        """What is kept of a prompt of ``length`` whose prefill is done.

        Args:
            spans: of its visual tokens.
            pinned: contents that running requests use.
        """
        mask = torch.ones(length, dtype=torch.int32, device=self.device)
        total, chosen = length, [mask[:0].long()]
        mm_inputs = req.multimodal_inputs
        for key, parts in self.videos(mm_inputs, spans):
            where = torch.cat([torch.arange(p.start, p.stop, device=self.device) for p in parts])
            kept = self.table.get(key)
            if kept is None:
                kept = self._choose(req.rid, self._grid(mm_inputs, parts), where)
                self.table.put(key, len(where), kept, pinned)
                chosen.append(where)
            mask[where] = 0
            mask[where[kept]] = 1
            total -= len(where) - len(kept)
        return Kept(mask.topk(total).indices.sort().values, torch.cat(chosen))

    def _grid(self, mm_inputs: Any, parts: Sequence[Span]) -> Grid:
        """The common grid of a video's frames, or one long row where they have none."""
        items = [list(run) for _, run in groupby(parts, key=lambda part: part.item)]
        grids = [self.family.grid(mm_inputs.mm_items[i[0].item], _tokens(i)) for i in items]
        if len({grid[1:] for grid in grids}) > 1:
            return Grid(1, 1, _tokens(parts))
        return grids[0]._replace(frames=sum(grid.frames for grid in grids))

    def _choose(self, rid: str, grid: Grid, where: torch.Tensor) -> torch.Tensor:
        pruner, scores = self.pruner, None
        if self.watch is not None:
            scores = self.watch.scores(rid, where)
            if scores is None:
                logger.info(
                    "The prefill of a video of %d tokens was not seen: it is kept evenly.",
                    len(where),
                )
                pruner = Uniform()
            elif (group := get_parallel().tp_group).world_size > 1:
                # Each rank has seen its own heads; all must choose alike.
                scores = group.broadcast(group.all_reduce(scores), src=0)
        count("choices", pruner=NAMES[type(pruner)])
        keep = max(self.keep, self.at_least / grid.tokens)
        return pruner.choose(grid, keep, scores).to(self.device)

    def _new(self, req: Any) -> torch.Tensor | None:
        """Where a prompt holds visual tokens, if it brings a video that is not known yet."""
        mm_inputs, ids = req.multimodal_inputs, req.full_untruncated_fill_ids
        spans = visible_spans(self.family, mm_inputs, ids)
        new = [
            parts[0].start for key, parts in self.videos(mm_inputs, spans) if key not in self.table
        ]
        scores = self.pruner.scores
        # Of cached tokens the keys can be read, the hidden states cannot.
        hidden = scores is not None and scores.reads == "hidden"
        if not new or (hidden and min(new) < req.prefix_len):
            return None
        visual = torch.zeros(len(ids), dtype=torch.bool)
        for span in spans:
            visual[span.start : span.stop] = True
        return visual.to(self.device)


def _tokens(parts: Sequence[Span]) -> int:
    return sum(part.stop - part.start for part in parts)
