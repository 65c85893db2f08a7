"""The Qwen2.5-VL forward for clips of one fixed size, written to train fast.

Parameter names and arithmetic are those of transformers' Qwen2_5_VLForConditionalGeneration; the
tests hold the two equal. Every clip has the same grid, so the tower needs no ragged windows, and
text never precedes the video, so the attention of the video can be computed apart.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvspec_sglang.miniworld.model import MERGE, PATCH, Size
from lvspec_sglang.miniworld.render import HEIGHT, WIDTH
from lvspec_sglang.miniworld.scene import GROUPS

GRID = (GROUPS, HEIGHT // PATCH, WIDTH // PATCH)
"""Patches of a clip: temporal groups, rows, columns."""
PATCHES = GRID[1] * GRID[2]
PATCH_FEATURES = 3 * 2 * PATCH * PATCH
VIDEO_TOKENS = GROUPS * PATCHES // MERGE**2
MROPE_SECTION = (16, 8, 8)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], self.weight, 1e-6).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [..., S, D] by tables that broadcast to it."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention of [B, H, Q, D] over [B, H, K, D], plus a bias that broadcasts to it."""
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    return torch.matmul(scores.float().softmax(-1).to(v.dtype), v)


class MLP(nn.Module):
    def __init__(self, width: int, inner: int, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class VisionAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, s, w = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, None)
        return self.proj(out.transpose(1, 2).reshape(b, s, w))


class VisionBlock(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1 = RMSNorm(size.vision_hidden)
        self.norm2 = RMSNorm(size.vision_hidden)
        self.attn = VisionAttention(size.vision_hidden, size.vision_heads)
        self.mlp = MLP(size.vision_hidden, size.vision_mlp, bias=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, (2, PATCH, PATCH), (2, PATCH, PATCH), bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        return F.linear(patches, self.proj.weight.flatten(1))


class Merger(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        inner = width * MERGE**2
        self.ln_q = RMSNorm(width)
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.ln_q(x).view(x.shape[0], -1, self.mlp[0].in_features))


class Tower(nn.Module):
    """Vision tower: normalised patches [B, GROUPS * PATCHES, PATCH_FEATURES] to video tokens."""

    cos: Tensor
    sin: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(size.vision_hidden)
        self.blocks = nn.ModuleList(VisionBlock(size) for _ in range(size.vision_layers))
        self.merger = Merger(size.vision_hidden, size.hidden)
        cos, sin = vision_rope(size.vision_hidden // size.vision_heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        x = self.patch_embed(patches).view(-1, PATCHES, self.patch_embed.proj.out_channels)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.merger(x).view(patches.shape[0], VIDEO_TOKENS, -1)


def vision_rope(head_dim: int) -> tuple[Tensor, Tensor]:
    """Rotary tables [PATCHES, head_dim] of one frame's patches, in merge-block order."""
    rows, columns = torch.meshgrid(torch.arange(GRID[1]), torch.arange(GRID[2]), indexing="ij")

    def order(x: Tensor) -> Tensor:
        blocks = x.view(GRID[1] // MERGE, MERGE, GRID[2] // MERGE, MERGE)
        return blocks.permute(0, 2, 1, 3).flatten().float()

    inverse = 1e4 ** -(torch.arange(0, head_dim // 2, 2).float() / (head_dim // 2))
    angles = torch.cat([order(rows)[:, None] * inverse, order(columns)[:, None] * inverse], -1)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


class Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads, self.kv_heads = size.heads, size.kv_heads
        self.head_dim = size.hidden // size.heads
        self.q_proj = nn.Linear(size.hidden, size.hidden)
        self.k_proj = nn.Linear(size.hidden, self.kv_heads * self.head_dim)
        self.v_proj = nn.Linear(size.hidden, self.kv_heads * self.head_dim)
        self.o_proj = nn.Linear(size.hidden, size.hidden, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, heads, S, D] and keys and values [B, kv_heads, S, D], rotated."""
        b, s, _ = x.shape
        q = self.q_proj(x).view(b, s, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, s, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, s, self.kv_heads, self.head_dim).transpose(1, 2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor, prefix: int) -> Tensor:
        q, k, v = self.project(x, cos, sin)
        share = self.heads // self.kv_heads
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        video = attend(
            q[:, :, :prefix], k[:, :, :prefix], v[:, :, :prefix], bias[:1, :, :prefix, :prefix]
        )
        text = attend(q[:, :, prefix:], k, v, bias[:, :, prefix:])
        return self.o_proj(torch.cat((video, text), 2).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.self_attn = Attention(size)
        self.mlp = MLP(size.hidden, size.mlp, bias=False)
        self.input_layernorm = RMSNorm(size.hidden)
        self.post_attention_layernorm = RMSNorm(size.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor, prefix: int) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, bias, prefix)
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    def __init__(self, size: Size, vocab: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, size.hidden)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = RMSNorm(size.hidden)


class MiniVL(nn.Module):
    """Tower and language model; `state_dict()` prefixed with "model." is the checkpoint."""

    def __init__(self, size: Size, vocab: int) -> None:
        super().__init__()
        self.size = size
        self.visual = Tower(size)
        self.language_model = LanguageModel(size, vocab)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(
        self,
        video: Tensor,
        ids: Tensor,
        positions: Tensor,
        bias: Tensor,
        prefix: int,
        halfway: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits [B, S - prefix, vocab] of the text after the prefix.

        video: tower output [B, VIDEO_TOKENS, hidden]; ids: [B, S]; positions: [3, B, S]; bias:
        [B, 1, S, S], added to the attention scores. The first `prefix` tokens end with the video's
        closing token, and see nothing after them. A list given as `halfway` receives the video
        tokens' hidden states [B, VIDEO_TOKENS, hidden] after half of the layers.
        """
        lm = self.language_model
        x = lm.embed_tokens(ids)
        start = prefix - 1 - VIDEO_TOKENS
        x = torch.cat([x[:, :start], video.to(x.dtype), x[:, prefix - 1 :]], 1)
        x = x.to(video.dtype)
        cos, sin = text_rope(positions, self.size.hidden // self.size.heads)
        bias = bias.to(x.dtype)
        for number, layer in enumerate(lm.layers):
            x = layer(x, cos, sin, bias, prefix)
            if halfway is not None and number == (self.size.layers - 1) // 2:
                halfway.append(x[:, start : prefix - 1])
        return F.linear(lm.norm(x[:, prefix:]), lm.embed_tokens.weight)


def text_rope(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """M-RoPE tables [B, 1, S, head_dim] for positions [3, B, S]."""
    inverse = 1e6 ** -(torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim)
    angles = positions[..., None].float() * inverse
    parts = [angles[axis] for axis in range(3)]
    chosen = torch.cat([part.split(MROPE_SECTION, -1)[axis] for axis, part in enumerate(parts)], -1)
    chosen = torch.cat([chosen, chosen], -1)[:, None]
    return chosen.cos(), chosen.sin()


def segment_bias(segments: Tensor, prefix: int) -> Tensor:
    """Attention bias [B, 1, S, S] of segment numbers [B, S].

    Causal, and a text token sees the prefix and the earlier tokens of its own segment only.
    """
    length = segments.shape[1]
    index = torch.arange(length, device=segments.device)
    seen = (index[None] < prefix) | (segments[:, :, None] == segments[:, None, :])
    seen = seen & (index[None, :] <= index[:, None])
    return torch.where(seen, 0.0, -1e4)[:, None]
