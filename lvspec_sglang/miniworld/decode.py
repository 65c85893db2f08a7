"""Greedy decoding of many clips at once, for evaluation without a server."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lvspec_sglang.miniworld.data import Prompter, patchify
from lvspec_sglang.miniworld.net import VIDEO_TOKENS, Attention, Layer, MiniVL, attend, text_rope


@dataclass
class Cache:
    """Keys and values [B, kv_heads, S, D] of each layer, and which slots hold a token [B, S]."""

    keys: list[Tensor]
    values: list[Tensor]
    filled: Tensor


@torch.inference_mode()
def video_tokens(model: MiniVL, pixels: Tensor, batch: int = 50) -> Tensor:
    """Tower output [N, VIDEO_TOKENS, hidden] of uint8 frames [N, frames, H, W, 3]."""
    return torch.cat([model.visual(patchify(part)) for part in pixels.split(batch)])


@torch.inference_mode()
def generate(
    model: MiniVL,
    prompter: Prompter,
    video: Tensor,
    prompts: list[list[int]],
    max_tokens: int = 160,
) -> list[list[int]]:
    """Greedy answers, without the end token, to one prompt a clip.

    video: [B, VIDEO_TOKENS, hidden]; a prompt holds the tokens after the video's closing token.
    """
    count, longest = len(prompts), max(map(len, prompts))
    device = video.device
    pad = prompter.tokenizer.pad_token_id
    end = prompter.tokenizer.eos_token_id
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    rows = [[*prompter.prefix_ids, *prompt, *[pad] * (longest - len(prompt))] for prompt in prompts]
    ids = torch.tensor(rows, device=device)
    text = torch.arange(longest, device=device) + prompter.text_start
    head = torch.from_numpy(prompter.prefix_positions).to(device)
    positions = torch.cat([head, text.expand(3, -1)], 1)[:, None].expand(-1, count, -1)
    start = prompter.prefix - 1 - VIDEO_TOKENS
    embed = model.language_model.embed_tokens
    x = torch.cat([embed(ids[:, :start]), video, embed(ids[:, prompter.prefix - 1 :])], 1)
    filled = torch.arange(x.shape[1], device=device) < (prompter.prefix + lengths)[:, None]
    cache = Cache([], [], filled)
    hidden = _run(model, x, positions, cache)
    hidden = hidden[torch.arange(count), prompter.prefix + lengths - 1]
    places = prompter.text_start + lengths
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(count))
    for _ in range(max_tokens):
        token = F.linear(model.language_model.norm(hidden), embed.weight).argmax(-1)
        for row in list(open_rows):
            if token[row] == end:
                open_rows.discard(row)
            else:
                answers[row].append(int(token[row]))
        if not open_rows:
            break
        hidden = _run(model, embed(token)[:, None], places.expand(3, -1)[..., None], cache)[:, 0]
        places = places + 1
    return answers


def _run(model: MiniVL, x: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """Hidden states [B, Q, hidden] of new tokens, whose keys and values join the cache."""
    cos, sin = text_rope(positions, model.size.hidden // model.size.heads)
    new = x.shape[1]
    first = not cache.keys
    if not first:
        cache.filled = F.pad(cache.filled, (0, new), value=True)
    total = cache.filled.shape[1]
    query = torch.arange(total - new, total, device=x.device)
    seen = cache.filled[:, None] & (torch.arange(total, device=x.device) <= query[:, None])
    bias = torch.where(seen, 0.0, -1e4)[:, None].to(x.dtype)
    for number, layer in enumerate(model.language_model.layers):
        assert isinstance(layer, Layer)
        normed = layer.input_layernorm(x)
        x = x + _attention(layer.self_attn, normed, cos, sin, bias, cache, number)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return x


def _attention(
    attention: Attention,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    bias: Tensor,
    cache: Cache,
    number: int,
) -> Tensor:
    q, k, v = attention.project(x, cos, sin)
    if number == len(cache.keys):
        cache.keys.append(k)
        cache.values.append(v)
    else:
        k = cache.keys[number] = torch.cat([cache.keys[number], k], 2)
        v = cache.values[number] = torch.cat([cache.values[number], v], 2)
    share = attention.heads // attention.kv_heads
    out = attend(q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1), bias)
    return attention.o_proj(out.transpose(1, 2).flatten(2))
