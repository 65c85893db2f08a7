"""Kernels and attention forms against their floors and their torch references.

On a CUDA GPU: the accept rule's kernels, the mass kernel, and verify attention, FlashInfer's plain
and with videos shared, and FA3's where SGLang has it. Without a GPU only the torch references run,
at small sizes; the rest is marked so.
"""

import argparse
from collections.abc import Callable
from itertools import product
from typing import Any

import torch

from lvspec_sglang.attention.chain_plan import Context
from lvspec_sglang.bench.captured import CapturedAttention, fa3_call, planned_call
from lvspec_sglang.bench.machine import (
    NO_GPU,
    Machine,
    copy_bandwidth,
    product_rate,
    recorded,
    time_us,
)
from lvspec_sglang.bench.shapes import SHAPES, Shape
from lvspec_sglang.bench.verify_rows import accept_row, compare_row
from lvspec_sglang.record import new_record, write_record
from lvspec_sglang.relevance.attention import visual_attention

WIDTH = 11
TEXT = 200  # tokens of a request that are not its video's
VIDEOS = (1024, 4096, 10240, 16384, 65536)
BATCHES = (1, 4, 16, 64)


class Case:
    """Requests on videos of a length, their KV in a pool, one layer of a target."""

    def __init__(self, shape: Shape, video: int, batch: int, shared: bool, device: str) -> None:
        self.shape, self.video, self.batch, self.shared = shape, video, batch, shared
        self.length = video + TEXT
        context = self.length + WIDTH
        generator = torch.Generator(device).manual_seed(0)
        slots = batch * context
        self.table = torch.randperm(slots, generator=generator, device=device)
        self.table = self.table.view(batch, context).int()
        if shared:
            self.table[:, : video + 4] = self.table[0, : video + 4].clone()
        dtype = torch.bfloat16 if device == "cuda" else torch.float32

        def noise(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator, device=device, dtype=dtype)

        self.keys = noise(slots, shape.kv_heads, shape.head_dim)
        self.values = noise(slots, shape.kv_heads, shape.head_dim)
        self.q = noise(batch * WIDTH, shape.heads, shape.head_dim)
        self.rows = torch.arange(batch, device=device)
        self.seq_lens = torch.full((batch,), self.length, device=device)
        self.visual = torch.zeros(batch, context, dtype=torch.bool, device=device)
        self.visual[:, 4 : video + 4] = True
        self.contexts = [
            Context(i, ((4, video + 4),), "one" if shared else i) for i in range(batch)
        ]
        self.scale = shape.head_dim**-0.5

    def key_bytes(self) -> int:
        """Bytes of the keys a layer must read: a shared video's once."""
        videos = 1 if self.shared else self.batch
        return self.token_bytes() * (videos * self.video + self.batch * (TEXT + WIDTH))

    def token_bytes(self) -> int:
        """Bytes of a token's keys in a layer."""
        return self.shape.kv_heads * self.shape.head_dim * self.keys.element_size()

    def cache(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values in ``slots`` in fp32, those of each query head."""
        group = self.shape.heads // self.shape.kv_heads
        k, v = (c[slots.long()].float() for c in (self.keys, self.values))
        return k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)

    def operations(self) -> int:
        """Multiplications and additions of all queries with all keys, once."""
        return 2 * len(self.q) * self.shape.heads * self.shape.head_dim * (self.length + WIDTH)

    def reference(
        self, request: int, length: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention, mass and focus of one request in fp32, of ``length`` committed tokens."""
        length = length or self.length
        slots = self.table[request, : length + WIDTH]
        k, v = self.cache(slots)
        q = self.q[request * WIDTH : (request + 1) * WIDTH].float()
        logits = torch.einsum("qhd,khd->hqk", q, k) * self.scale
        visible = torch.ones(WIDTH, len(slots), dtype=torch.bool, device=q.device)
        logits = logits.masked_fill(~visible.tril_(length), float("-inf"))
        output = torch.einsum("hqk,khd->qhd", logits.softmax(-1), v)
        return output, *visual_attention(logits, self.visual[request, : len(slots)])


def run(arguments: argparse.Namespace) -> None:
    """Measure and print the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = device == "cpu"
    videos = arguments.videos or ((256, 1024) if small else VIDEOS)
    batches = arguments.batches or ((1, 2) if small else BATCHES)
    shape = SHAPES[arguments.shape]
    machine = Machine(copy_bandwidth(device), product_rate(device))
    rows = [row(batch, device) for row in (compare_row, accept_row) for batch in batches]
    record = new_record("kernels") | {
        "shape": arguments.shape,
        "machine": machine._asdict(),
        "rows": rows,
    }
    for video, batch in product(videos, batches):
        for shared in (False, True) if batch > 1 else (False,):
            case = Case(shape, video, batch, shared, device)
            rows += attention_rows(case, machine, device)
            if arguments.json:
                write_record(arguments.json, record)
    _print(record)


def attention_rows(case: Case, machine: Machine, device: str) -> list[dict[str, Any]]:
    """Mass kernel and verify attention of one case."""
    about = {"video": case.video, "batch": case.batch, "shared": case.shared}
    keys, work = case.key_bytes(), case.operations()
    if device == "cpu":
        us = time_us(lambda: case.reference(0), device)
        floor = machine.floor_us(2 * keys, 2 * work) / case.batch
        name = "attention, mass, focus of one request, torch"
        return [about | {"what": name, "us": us, "floor_us": floor, "kernels": NO_GPU}]
    from lvspec_sglang.attention.mass_kernel import paged_visual_attention

    out = torch.empty(2, len(case.q), case.shape.heads, device=device)
    inputs = case.q, case.keys, case.table, case.rows, case.seq_lens, case.visual, case.scale

    def masses() -> None:
        paged_visual_attention(*inputs, *out)

    masses()
    wanted = case.reference(case.batch - 1)
    last = out[:, -WIDTH:]
    error = max(float((last[i] - wanted[1 + i]).abs().max()) for i in (0, 1))
    us, floor = time_us(recorded(masses), device), machine.floor_us(keys, work)
    rows = [about | {"what": "mass and focus", "us": us, "floor_us": floor, "error": error}]
    floor = machine.floor_us(2 * keys, 2 * work)
    for together in (False, True) if case.shared else (False,):
        graph = captured(case, together)
        error = float((graph.replay()[-WIDTH:].float() - wanted[0]).abs().max())
        us = time_us(graph.replay, device)
        name = "verify attention, video shared" if together else "verify attention, plain"
        rows.append(about | {"what": name, "us": us, "floor_us": floor, "error": error})

    def fa3() -> Callable[[], torch.Tensor]:
        return fa3_call(case.q, case.keys, case.values, case.table, case.scale, True)

    rows.append(about | measured("verify attention, FA3", fa3, wanted[0], floor))
    if case.shared:
        rows += [about | row for row in video_rows(case, machine)]
    return rows


def video_rows(case: Case, machine: Machine) -> list[dict[str, Any]]:
    """A shared video's part of verify attention by itself, on FlashInfer and on FA3."""
    cached = case.q, case.keys, case.values
    slots = case.table[0, 4 : case.video + 4].contiguous()
    k, v = case.cache(slots)
    logits = torch.einsum("qhd,khd->hqk", case.q[-WIDTH:].float(), k) * case.scale
    wanted = torch.einsum("hqk,khd->qhd", logits.softmax(-1), v)
    floor = machine.floor_us(2 * len(slots) * case.token_bytes(), 4 * case.q.numel() * len(slots))
    calls = {
        "fa2": lambda: planned_call(*cached, slots, case.scale),
        "FA3": lambda: fa3_call(*cached, slots[None], case.scale, False),
    }
    return [measured(f"video's part, {n}", make, wanted, floor) for n, make in calls.items()]


def measured(
    what: str, make: Callable[[], Callable[[], torch.Tensor]], wanted: torch.Tensor, floor: float
) -> dict[str, Any]:
    """A row of a call whose last queries' attention is ``wanted``, or why it cannot be made."""
    try:
        call = make()
        error = float((call()[-WIDTH:].float() - wanted).abs().max())
        us = time_us(recorded(call), "cuda")
    except (ImportError, RuntimeError, ValueError) as failure:  # not for this GPU, say
        return {"what": what, "failed": str(failure).splitlines()[0]}
    return {"what": what, "us": us, "floor_us": floor, "error": error}


def captured(case: Case, together: bool) -> CapturedAttention:
    """A case's planned attention on FlashInfer."""
    graph = CapturedAttention(case.q, case.keys, case.values, case.table, case.scale, together)
    graph.plan(case.contexts, [case.length] * case.batch)
    return graph


def _print(record: dict[str, Any]) -> None:
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in record["machine"].items())
    print(f"{record['hardware']}; heads of {record['shape']}; {rates}")
    for row in record["rows"]:
        print("  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
        ))  # fmt: skip
