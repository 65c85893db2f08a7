"""Reads what a pruner wants to know out of the target's ordinary prefill.

Hooks on the target's own modules, so that it works with every attention backend whose prefill
runs eagerly. Outside a watched prefill they do nothing.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from sglang.srt.layers.radix_attention import RadixAttention

from lvspec_sglang.pruning import Scores


@dataclass
class Watched:
    """A request whose prompt of ``length`` is being scored; ``seen`` tokens of it have been."""

    scores: Scores
    length: int
    seen: int

    def continues(self, req: Any) -> bool:
        """Whether ``req`` is the same prompt, at its next chunk."""
        start, length = req.prefix_len, len(req.full_untruncated_fill_ids)
        return self.seen == start < self.length == length


class Part(NamedTuple):
    """One request's tokens in the running forward: ``[first, first + stop - start)`` of the batch
    are prompt positions ``[start, stop)`` of table row ``row``."""

    scores: Scores
    row: int
    first: int
    start: int
    stop: int


class PrefillWatch:
    """Feeds a pruner's ``Scores`` while the target prefills, chunk by chunk."""

    def __init__(self, scores: type[Scores], runner: Any, decoder: Any) -> None:
        """Watch ``runner``, whose inner language model is ``decoder``."""
        self.make = scores
        self.runner = runner
        self.watched: dict[str, Watched] = {}
        self.parts: list[Part] = []
        self.heard = False
        layers = scores.layers(len(decoder.layers))
        for layer in layers:
            attention = decoder.layers[layer].self_attn
            if scores.reads == "hidden":
                attention.register_forward_pre_hook(self._hidden(layer), with_kwargs=True)
            else:
                (inner,) = (m for m in attention.modules() if isinstance(m, RadixAttention))
                inner.register_forward_hook(self._attention)

    @contextlib.contextmanager
    def prefill(
        self, reqs: Iterable[Any], wanted: Callable[[Any], torch.Tensor | None]
    ) -> Iterator[None]:
        """Watch one prefill of ``reqs``, in the order of the batch.

        Args:
            wanted: where a request's prompt holds visual tokens, ``[prompt]`` bool on the device,
                or None if it need not be scored. A request is scored from its first chunk on.
        """
        watched, first = {}, 0
        for req in reqs:
            start, stop = req.prefix_len, req.extend_end
            entry = self.watched.get(req.rid)
            if entry is None or not entry.continues(req):
                visual = wanted(req)
                entry = None
                if visual is not None:
                    entry = Watched(self.make(visual), len(visual), start)
            if entry is not None:
                entry.seen = stop
                watched[req.rid] = entry
                self.parts.append(Part(entry.scores, req.kv.req_pool_idx, first, start, stop))
            first += stop - start
        self.watched = watched
        self.heard = False
        try:
            yield
        finally:
            self.parts = []
            if not self.heard:
                # A captured graph calls no hooks.
                self.watched = {}

    def scores(self, rid: str, positions: torch.Tensor) -> torch.Tensor | None:
        """Scores of prompt ``positions``, if the request's whole prefill was seen."""
        entry = self.watched.get(rid)
        return None if entry is None else entry.scores.of(positions)

    def _attention(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.heard = True
        for part in self.parts:
            queries = args[0].view(-1, module.tp_q_head_num, module.qk_head_dim)
            part.scores.observe(
                module.layer_id,
                part.start,
                queries[part.first : part.first + part.stop - part.start],
                functools.partial(self._keys, module.layer_id, part),
                module.scaling,
            )

    def _keys(self, layer: int, part: Part) -> torch.Tensor:
        slots = self.runner.req_to_token_pool.req_to_token[part.row, : part.stop].long()
        return self.runner.token_to_kv_pool.get_key_buffer(layer)[slots]

    def _hidden(self, layer: int) -> Callable[..., None]:
        def observe(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.heard = True
            for part in self.parts:
                hidden = kwargs["hidden_states"][part.first : part.first + part.stop - part.start]
                part.scores.observe(layer, part.start, hidden, None, 1.0)

        return observe
