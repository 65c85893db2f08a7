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
    """Keys and values of all layers [layers, 2, B, kv_heads, slots, D], and what they hold.

    `filled` [B, slots] says which slots hold a token; the first `length` ones are in use.
    """

    entries: Tensor
    filled: Tensor
    length: int = 0


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
    slots = x.shape[1] + max_tokens
    index = torch.arange(slots, device=device)
    filled = (index < (prompter.prefix + lengths)[:, None]) | (index >= x.shape[1])
    size = model.size
    shape = (size.layers, 2, count, size.kv_heads, slots, size.hidden // size.heads)
    cache = Cache(torch.zeros(shape, device=device), filled)
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
    first, total = cache.length, cache.length + x.shape[1]
    cache.length = total
    query = torch.arange(first, total, device=x.device)
    seen = cache.filled[:, None, :total] & (torch.arange(total, device=x.device) <= query[:, None])
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
    length = cache.length
    cache.entries[number, 0, :, :, length - x.shape[1] : length] = k
    cache.entries[number, 1, :, :, length - x.shape[1] : length] = v
    k, v = cache.entries[number, :, :, :, :length]
    b, heads, new, width = q.shape
    q = q.reshape(b, attention.kv_heads, -1, width)
    share = heads // attention.kv_heads
    out = attend(q, k, v, bias.repeat(1, 1, share, 1)).reshape(b, heads, new, width)
    return attention.o_proj(out.transpose(1, 2).flatten(2))
