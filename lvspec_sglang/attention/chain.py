"""Verify attention over a split context, by planned paged-prefill calls (FlashInfer's interface).

A batch whose requests share nothing is one plain call. Where requests read one video together, it
is read once for all their queries and merged with the rest by log-sum-exp.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

from lvspec_sglang.attention.chain_plan import Context, Part, indptr, slots_of, split, whole
from lvspec_sglang.upload import upload


class Shape(NamedTuple):
    """Heads of the target on this rank, the dtypes of its queries and its KV, and how it is read.

    Attributes:
        piece: keys of a request that one program reads, whatever else is in the batch; None where
            a plan divides them as the batch makes it worth while.
    """

    qo_heads: int
    kv_heads: int
    head_dim: int
    q_dtype: torch.dtype
    kv_dtype: torch.dtype
    piece: int | None = None


class Call:
    """One paged-prefill wrapper and the host's side of its plan."""

    def __init__(
        self, make: Callable[[], Any], shape: Shape, fast_plan: Callable[..., None] | None
    ) -> None:
        """``fast_plan`` replans a captured wrapper, which ``make`` makes, without reading the
        device."""
        self.make = make
        self.shape = shape
        self.fast_plan = fast_plan
        self.planned = False

    @cached_property
    def wrapper(self) -> Any:
        """Made when first planned: it takes 8 MB on the device and as much pinned memory."""
        return self.make()

    def plan(self, part: Part, table: torch.Tensor) -> None:
        segments = torch.tensor(part.segments, dtype=torch.int64).view(-1, 3).T.contiguous()
        qo, kv = indptr(part.qo_lens), indptr(part.kv_lens)
        lens = torch.tensor(part.kv_lens, dtype=torch.int32)
        ones = torch.ones(len(lens), dtype=torch.int32)
        if table.is_cuda:
            qo, kv, ones = (host.pin_memory() for host in (qo, kv, ones))
        slots = slots_of(table, upload(segments, table.device), sum(part.kv_lens))
        arguments = (
            qo, kv, slots, ones, self.shape.qo_heads, self.shape.kv_heads, self.shape.head_dim, 1,
        )  # fmt: skip
        options = {
            "q_data_type": self.shape.q_dtype, "kv_data_type": self.shape.kv_dtype,
            "fixed_split_size": self.shape.piece,
        }  # fmt: skip
        if self.fast_plan is None or not self.planned:
            self.wrapper.plan(*arguments, **options, non_blocking=True)
        if self.fast_plan is not None:
            self.fast_plan(
                self.wrapper, *arguments, **options, qo_indptr_host=qo, kv_indptr_host=kv,
                kv_lens_host=lens, max_q_len=max(part.qo_lens), max_kv_len=max(part.kv_lens),
            )  # fmt: skip
        self.planned = True

    def __call__(
        self, q: torch.Tensor, kv_cache: Any, layer: Any, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention ``[tokens, heads, dim]`` and its LSE to base 2, ``[tokens, heads]``."""
        output: tuple[torch.Tensor, torch.Tensor] = self.wrapper.forward_return_lse(
            q, kv_cache, causal=causal, sm_scale=layer.scaling, logits_soft_cap=layer.logit_cap
        )
        return output


class Calls(NamedTuple):
    """The calls of one batch size, and the query order of the shared video part on the device.

    Attributes:
        order, back: ``[batch * width]`` int64, the permutation of queries and its inverse.
    """

    whole: Call
    video: Call
    rest: Call
    order: torch.Tensor
    back: torch.Tensor


def bundle(calls: Iterable[Call], queries: int, device: torch.device | str) -> Calls:
    """Calls for the whole, the video and the rest of a batch of ``queries``."""
    whole_call, video, rest = calls
    order = torch.arange(queries, device=device)
    return Calls(whole_call, video, rest, order, order.clone())


class ChainAttention:
    """Plans and runs the attention of verify forwards.

    ``plan`` runs once a forward, outside a captured graph; ``forward`` runs per layer and depends
    on nothing but whether the batch is shared and on static buffers.
    """

    def __init__(
        self,
        table: torch.Tensor,
        merge: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        """Prepare for chains over the request ``table``.

        Args:
            merge: of two attentions and their LSEs to base 2, the whole and its LSE.
        """
        self.table = table
        self.merge = merge
        self.shared = False
        self.calls: Calls | None = None

    def plan(
        self,
        calls: Calls,
        contexts: Sequence[Context],
        seq_lens: Sequence[int],
        shared: bool,
        width: int,
    ) -> None:
        """Plan a forward; requests beyond ``contexts`` are a graph's padding.

        Args:
            seq_lens: committed lengths, one for each entry of ``calls``.
            shared: whether requests on one video read it together.
            width: tokens of each request's chain.
        """
        contexts = [*contexts, *[Context(0)] * (len(seq_lens) - len(contexts))]
        self.calls, self.shared = calls, shared
        if not shared:
            calls.whole.plan(whole(contexts, seq_lens, width), self.table)
            return
        parts = split(contexts, seq_lens, width)
        calls.video.plan(parts.video, self.table)
        calls.rest.plan(parts.rest, self.table)
        members = torch.tensor(parts.members)
        order = (members[:, None] * width + torch.arange(width)).flatten()
        calls.order.copy_(upload(order, self.table.device))
        calls.back.copy_(upload(order.argsort(), self.table.device))

    def forward(self, q: torch.Tensor, kv_cache: Any, layer: Any) -> torch.Tensor:
        """Attend from ``q``, ``[batch * width, heads, head_dim]``; the chain's KV is written."""
        calls = self.calls
        assert calls is not None, "plan() first"
        if not self.shared:
            return calls.whole(q, kv_cache, layer, causal=True)[0]
        seen, seen_lse = calls.video(q[calls.order], kv_cache, layer, causal=False)
        rest, rest_lse = calls.rest(q, kv_cache, layer, causal=True)
        return self.merge(seen[calls.back], seen_lse[calls.back], rest, rest_lse)[0]
