"""Compare the mass kernel with its reference: ``mass_program.py DEVICE``."""

import sys

import torch

from lvspec_sglang.attention.mass_kernel import paged_visual_attention
from lvspec_sglang.relevance.attention import visual_attention

CASES = (  # batch, width, heads, kv heads, head dim, longest context
    (1, 11, 4, 2, 16, 300),
    (3, 4, 7, 1, 32, 90),
    (2, 3, 10, 2, 24, 700),
    (5, 11, 2, 2, 128, 40),
)


def main(device: str) -> None:
    dtypes = (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,)
    for seed, (batch, width, heads, kv_heads, dim, longest) in enumerate(CASES):
        for dtype in dtypes:
            worst = compare(seed, batch, width, heads, kv_heads, dim, longest, dtype, device)
            limit = 1e-5 if dtype == torch.float32 else 1e-2
            assert worst < limit, (seed, dtype, worst)
            print(f"batch {batch} width {width} heads {heads}/{kv_heads} {dtype}: {worst:.1e}")
    beyond(device)
    unseen(device)


def beyond(device: str) -> None:
    """A chain that reaches beyond its row reads no keys of the next one, which are NaN."""
    context, width = 100, 4
    table = torch.arange(2 * context, device=device, dtype=torch.int32).view(2, -1)
    keys = torch.randn(context, 1, 16, device=device)
    keys = torch.cat([keys, torch.full_like(keys, torch.nan)])
    q = torch.randn(width, 2, 16, device=device)
    visual = torch.zeros_like(table, dtype=torch.bool)
    visual[0, 10:60] = True
    seq_lens = torch.tensor([context - 1], device=device)
    found = torch.full((2, width, 2), torch.nan, device=device)
    row = torch.tensor([0], device=device)
    paged_visual_attention(q, keys, table, row, seq_lens, visual, 0.25, *found)
    logits = 0.25 * torch.einsum("qhd,kd->hqk", q[:1], keys[:context, 0])
    expected = torch.stack(visual_attention(logits, visual[0]))
    torch.testing.assert_close(found[:, :1], expected, rtol=1e-3, atol=1e-4)
    assert bool(found.isfinite().all())


def unseen(device: str) -> None:
    """A video whose attention underflows has neither mass nor focus."""
    keys = torch.full((64, 1, 16), -30.0, device=device)
    keys[0] = 30.0  # what a query along it sees instead
    visual = torch.arange(64, device=device)[None] > 31
    table = torch.arange(64, device=device, dtype=torch.int32)[None]
    q = torch.ones(1, 1, 16, device=device)
    found = torch.full((2, 1, 1), torch.nan, device=device)
    row, seq_lens = torch.tensor([0], device=device), torch.tensor([63], device=device)
    paged_visual_attention(q, keys, table, row, seq_lens, visual, 0.25, *found)
    assert found.tolist() == [[[0.0]], [[0.0]]]


def compare(
    seed: int, batch: int, width: int, heads: int, kv_heads: int, dim: int, longest: int,
    dtype: torch.dtype, device: str,
) -> float:  # fmt: skip
    """The largest difference; requests without a video, and rows in any order, among them."""
    generator = torch.Generator().manual_seed(seed)
    context = longest + width
    table = torch.randperm((batch + 2) * context, generator=generator).view(batch + 2, -1).int()
    rows = torch.randperm(batch + 2, generator=generator)[:batch]
    seq_lens = torch.randint(1, longest + 1, (batch,), generator=generator)
    visual = torch.rand(table.shape, generator=generator) < 0.4
    visual[rows] &= torch.arange(context) < seq_lens[:, None]  # videos stand in the prompt
    visual[rows[-1]] &= batch == 1
    keys = torch.randn(table.numel(), kv_heads, dim, generator=generator).to(dtype)
    q = 2 * torch.randn(batch * width, heads + 1, dim, generator=generator).to(dtype)
    q = q.to(device)[:, :heads]  # strides of its own, as a slice of a fused projection has
    inputs = [t.to(device) for t in (keys, table, rows, seq_lens, visual)]
    found = torch.full((2, batch * width, heads), torch.nan, device=device)
    paged_visual_attention(q, *inputs, dim**-0.5, *found)
    expected = reference(q.cpu(), keys, table, rows, seq_lens, visual)
    return float((found.cpu() - expected).abs().max())


def reference(
    q: torch.Tensor, keys: torch.Tensor, table: torch.Tensor, rows: torch.Tensor,
    seq_lens: torch.Tensor, visual: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    width = len(q) // len(rows)
    masses = []
    for i, (row, seq_len) in enumerate(zip(rows.tolist(), seq_lens.tolist(), strict=True)):
        k = keys[table[row, : seq_len + width].long()].float()
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        logits = torch.einsum("qhd,khd->hqk", q[i * width : (i + 1) * width].float(), k)
        visible = torch.ones(logits.shape[1:], dtype=torch.bool).tril_(seq_len)
        logits = (logits * q.shape[2] ** -0.5).masked_fill(~visible, float("-inf"))
        seen = visual_attention(logits, visual[row, : seq_len + width])
        masses.append(torch.stack(seen))
    return torch.cat(masses, dim=1)


if __name__ == "__main__":
    main(sys.argv[1])
