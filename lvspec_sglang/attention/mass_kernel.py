"""Mass and focus from queries and paged keys alone, beside any attention: two Triton launches.

Keys are read once, in a fixed number of pieces a request, so that the grid never depends on the
data. A piece leaves, for every query and head, the largest logit and three sums over its keys: the
exponentials of all, those of the visual ones, and these times their logits; and how many are
visual. The second launch joins the pieces. A few queries meet many keys, so that arithmetic on
logits can cost more than reading the keys: each takes one exponential, and only the steps that
reach the chain have masks. Inside, logits are to the base 2.
"""

import math

import torch
import triton
import triton.language as tl

KEYS = 64  # keys a step
PROGRAMS = 528  # four for each multiprocessor of an H200
MAX_PIECES = 64
LEFT = 5  # numbers a piece leaves for a query and head
_LEFT = tl.constexpr(LEFT)
_LOWEST = tl.constexpr(-1e30)  # below any product
_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def add_keys(
    dots: tl.tensor,
    is_visual: tl.tensor,
    scale: tl.tensor,
    top: tl.tensor,
    total: tl.tensor,
    seen: tl.tensor,
    seen_dot: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """The largest product and the sums, with those of ``dots``, ``[queries, keys]``."""
    higher = tl.maximum(top, tl.max(dots, axis=1))
    fade = tl.exp2((top - higher) * scale)
    weight = tl.exp2(dots * scale - (higher * scale)[:, None])
    video = weight * is_visual[None, :]
    total = total * fade + tl.sum(weight, axis=1)
    seen = seen * fade + tl.sum(video, axis=1)
    seen_dot = seen_dot * fade + tl.sum(video * dots, axis=1)
    return higher, total, seen, seen_dot


@triton.jit
def mass_pieces(
    q: tl.tensor,
    keys: tl.tensor,
    table: tl.tensor,
    rows: tl.tensor,
    seq_lens: tl.tensor,
    visual: tl.tensor,
    pieces: tl.tensor,
    scale: tl.tensor,
    q_stride: tl.tensor,
    key_stride: tl.tensor,
    table_stride: tl.tensor,
    visual_stride: tl.tensor,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    DIMS: tl.constexpr,
    STEP: tl.constexpr,
    PIECES: tl.constexpr,
) -> None:
    """One program a piece, KV head and request; queries are (token, head of the group) pairs."""
    piece, kv_head, request = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(rows + request)
    table += row * table_stride
    visual += row * visual_stride
    prefix = tl.load(seq_lens + request).to(tl.int32)
    whole = prefix // STEP * STEP  # the last piece has what is beyond
    share = tl.cdiv(prefix // STEP, PIECES) * STEP
    start = piece * share
    stop = tl.minimum(start + share, whole)
    end = tl.minimum(prefix + WIDTH, table_stride)  # a row ends where the context does
    end = tl.where(piece == PIECES - 1, end, whole)

    place = tl.arange(0, QUERIES)
    token = place // GROUP
    dims = tl.arange(0, DIMS)
    in_dim = (dims < DIM)[None, :]
    heads = kv_head * GROUP + place % GROUP
    at = (request * WIDTH + token).to(tl.int64) * q_stride + heads * DIM
    mine = (place < WIDTH * GROUP)[:, None] & in_dim
    queries = tl.load(q + at[:, None] + dims[None, :], mask=mine, other=0.0)
    keys += kv_head * DIM + dims[None, :]
    scale *= 1 / _LN_2

    top = tl.full([QUERIES], _LOWEST, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    seen = tl.zeros([QUERIES], tl.float32)
    seen_dot = tl.zeros([QUERIES], tl.float32)
    count = tl.zeros([STEP], tl.float32)
    for begin in range(start, stop, STEP):
        position = begin + tl.arange(0, STEP)
        is_visual = tl.load(visual + position).to(tl.float32)
        slot = tl.load(table + position).to(tl.int64)
        block = tl.load(keys + slot[:, None] * key_stride, mask=in_dim, other=0.0)
        dots = tl.dot(queries, tl.trans(block), input_precision="ieee")
        top, total, seen, seen_dot = add_keys(dots, is_visual, scale, top, total, seen, seen_dot)
        count += is_visual
    visible = tl.minimum(end, prefix + token + 1)
    for begin in range(whole, end, STEP):
        position = begin + tl.arange(0, STEP)
        held = position < end
        is_visual = tl.load(visual + position, mask=held, other=0).to(tl.float32)
        slot = tl.load(table + position, mask=held, other=0).to(tl.int64)
        mask = held[:, None] & in_dim
        block = tl.load(keys + slot[:, None] * key_stride, mask=mask, other=0.0)
        dots = tl.dot(queries, tl.trans(block), input_precision="ieee")
        dots = tl.where(position[None, :] < visible[:, None], dots, _LOWEST)
        top, total, seen, seen_dot = add_keys(dots, is_visual, scale, top, total, seen, seen_dot)
        count += is_visual

    cell = ((request * tl.num_programs(1) + kv_head) * PIECES + piece) * _LEFT * QUERIES
    out = pieces + cell + place
    tl.store(out, top * scale)
    tl.store(out + QUERIES, total)
    tl.store(out + 2 * QUERIES, seen)
    tl.store(out + 3 * QUERIES, seen_dot * scale)
    tl.store(out + 4 * QUERIES, tl.zeros([QUERIES], tl.float32) + tl.sum(count, axis=0))


@triton.jit
def join_pieces(
    pieces: tl.tensor,
    mass: tl.tensor,
    focus: tl.tensor,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    QUERIES: tl.constexpr,
    PIECES: tl.constexpr,
) -> None:
    """One program a KV head, token and request, for the heads of the group."""
    kv_head, token, request = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(0)
    head = tl.arange(0, HEADS)
    real = head < GROUP
    held = real[:, None]
    cell = (request * kv_heads + kv_head) * PIECES + tl.arange(0, PIECES)
    cell = pieces + cell[None, :] * _LEFT * QUERIES + (token * GROUP + head)[:, None]

    tops = tl.load(cell, mask=held, other=_LOWEST)
    top = tl.max(tops, axis=1)
    weight = tl.exp2(tops - top[:, None])
    total = tl.sum(tl.load(cell + QUERIES, mask=held, other=0.0) * weight, axis=1)
    seen = tl.sum(tl.load(cell + 2 * QUERIES, mask=held, other=0.0) * weight, axis=1)
    dot = tl.sum(tl.load(cell + 3 * QUERIES, mask=held, other=0.0) * weight, axis=1)
    count = tl.sum(tl.load(cell + 4 * QUERIES, mask=held, other=0.0), axis=1)

    some = real & (seen > 0)
    seen = tl.where(some, seen, 1.0)
    lse = top + tl.log2(seen)
    pick = _LN_2 * (tl.log2(tl.where(some, count, 1.0)) - (lse - dot / seen))
    at = ((request * WIDTH + token) * kv_heads + kv_head) * GROUP + head
    tl.store(mass + at, tl.where(some, seen / total, 0.0), mask=real)
    tl.store(focus + at, tl.where(some, pick, 0.0), mask=real)


def pieces_of(batch: int, kv_heads: int) -> int:
    """Pieces of each request's keys: a power of two, so that few variants are ever compiled."""
    most = min(MAX_PIECES, max(1, PROGRAMS // (batch * kv_heads)))
    return 1 << (most.bit_length() - 1)


def launch_options(queries: int) -> dict[str, int]:
    """Warps of a program, and registers of a thread.

    So many warps that the tile of logits stays in registers, if it can; so few registers that
    sixteen warps fit a multiprocessor together.
    """
    warps = min(32, max(4, queries // 16))
    return {"num_warps": warps, "maxnreg": min(128, 65536 // (32 * warps))}


def paged_visual_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    table: torch.Tensor,
    rows: torch.Tensor,
    seq_lens: torch.Tensor,
    visual: torch.Tensor,
    scale: float,
    mass: torch.Tensor,
    focus: torch.Tensor,
) -> None:
    """Write ``relevance.attention.visual_attention`` of a verify forward's queries.

    Args:
        q: ``[batch * width, heads, head_dim]``, contiguous but for the first stride.
        keys: ``[slots, kv_heads, head_dim]``, those of the chain written.
        table: slot of each position, ``[rows, context]`` int32, contiguous.
        rows, seq_lens: row and committed length of each request, ``[batch]``.
        visual: which positions are visual, ``[rows, context]`` bool.
        scale: of the logits.
        mass, focus: ``[batch * width, heads]`` float32, contiguous, written. Where a mass
            underflows both are 0.
    """
    batch = len(rows)
    width, group, dim = len(q) // batch, q.shape[1] // keys.shape[1], q.shape[2]
    kv_heads = keys.shape[1]
    count = pieces_of(batch, kv_heads)
    queries = max(16, triton.next_power_of_2(width * group))
    pieces = torch.empty(batch * kv_heads * count * LEFT * queries, device=q.device)
    mass_pieces[(count, kv_heads, batch)](
        q, keys, table, rows, seq_lens, visual, pieces, scale,
        q.stride(0), keys.stride(0), table.stride(0), visual.stride(0),
        WIDTH=width, GROUP=group, DIM=dim, QUERIES=queries,
        DIMS=max(16, triton.next_power_of_2(dim)), STEP=KEYS, PIECES=count,
        **launch_options(queries),
    )  # fmt: skip
    join_pieces[(kv_heads, width, batch)](
        pieces, mass, focus, WIDTH=width, GROUP=group, HEADS=triton.next_power_of_2(group),
        QUERIES=queries, PIECES=count,
    )  # fmt: skip
