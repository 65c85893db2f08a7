"""Greedy decoding of many clips at once, for evaluation without a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lvspec_sglang.miniworld.data import Prompter, patchify
from lvspec_sglang.miniworld.net import VIDEO_TOKENS, Attention, Layer, MiniVL, attend, text_rope

Observer = Callable[[int, Tensor, Tensor, Tensor], None]
"""Is told of each layer its number, the rotated queries [B, heads, Q, D], all keys
[B, kv_heads, K, D] and the bias [B, 1, Q, K]."""


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
    device = video.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    ids, positions = layout(prompter, prompts, device)
    x = _embed(model, prompter, video, ids)
    slots = x.shape[1] + max_tokens
    index = torch.arange(slots, device=device)
    filled = (index < (prompter.prefix + lengths)[:, None]) | (index >= x.shape[1])
    cache = _empty(model, filled)
    hidden = _run(model, x, positions, cache)
    hidden = hidden[torch.arange(len(prompts)), prompter.prefix + lengths - 1]
    places = prompter.text_start + lengths
    return _write(model, prompter, hidden, places, cache, max_tokens)


@torch.inference_mode()
def read(
    model: MiniVL,
    prompter: Prompter,
    video: Tensor,
    prompt: list[int],
    text: list[int],
    observe: Observer | None = None,
) -> tuple[Tensor, Cache]:
    """Logits [len(text) + 1, vocab] of a given answer's tokens and what follows, and the cache.

    video: [1, VIDEO_TOKENS, hidden].
    """
    ids, positions = layout(prompter, [[*prompt, *text]], video.device)
    cache = _empty(model, torch.ones(ids.shape, dtype=torch.bool, device=video.device))
    hidden = _run(model, _embed(model, prompter, video, ids), positions, cache, observe)
    first = ids.shape[1] - len(text) - 1
    return _logits(model, hidden[0, first:]), cache


@torch.inference_mode()
def branch(
    model: MiniVL,
    prompter: Prompter,
    cache: Cache,
    slots: list[int],
    tokens: list[int],
    max_tokens: int = 160,
) -> list[list[int]]:
    """Greedy continuations, without the end token, of a read text with one of its tokens changed.

    Each has a token in place of the one in its slot of the cache, and goes on from there.
    """
    device = cache.entries.device
    base = max(slots)
    taken = torch.tensor(slots, device=device)
    index = torch.arange(base + 1 + max_tokens, device=device)
    filled = (index < taken[:, None]) | (index >= base)
    own = _empty(model, filled)
    own.entries[..., :base, :] = cache.entries[..., :base, :]
    own.length = base
    places = prompter.text_start - prompter.prefix + taken
    x = model.language_model.embed_tokens(torch.tensor(tokens, device=device))[:, None]
    hidden = _run(model, x, places.expand(3, -1)[..., None], own)[:, 0]
    return _write(model, prompter, hidden, places + 1, own, max_tokens)


def layout(
    prompter: Prompter, prompts: list[list[int]], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Ids [B, S] of the prefix and padded prompts, and their positions [3, B, S]."""
    longest = max(map(len, prompts))
    pad = prompter.tokenizer.pad_token_id
    rows = [[*prompter.prefix_ids, *prompt, *[pad] * (longest - len(prompt))] for prompt in prompts]
    text = torch.arange(longest) + prompter.text_start
    positions = torch.cat([torch.from_numpy(prompter.prefix_positions), text.expand(3, -1)], 1)
    positions = positions[:, None].expand(-1, len(rows), -1)
    return torch.tensor(rows, device=device), positions.to(device)


def _embed(model: MiniVL, prompter: Prompter, video: Tensor, ids: Tensor) -> Tensor:
    """Embeddings [B, S, hidden] of ids, with video tokens [B, VIDEO_TOKENS, hidden] in place."""
    start = prompter.prefix - 1 - VIDEO_TOKENS
    embed = model.language_model.embed_tokens
    return torch.cat([embed(ids[:, :start]), video, embed(ids[:, prompter.prefix - 1 :])], 1)


def _empty(model: MiniVL, filled: Tensor) -> Cache:
    size, (count, slots) = model.size, filled.shape
    shape = (size.layers, 2, count, size.kv_heads, slots, size.hidden // size.heads)
    return Cache(torch.zeros(shape, device=filled.device), filled)


def _logits(model: MiniVL, hidden: Tensor) -> Tensor:
    language = model.language_model
    return F.linear(language.norm(hidden), language.embed_tokens.weight)


def _write(
    model: MiniVL,
    prompter: Prompter,
    hidden: Tensor,
    places: Tensor,
    cache: Cache,
    max_tokens: int,
) -> list[list[int]]:
    """Greedy tokens up to the end token, from the last hidden states [B, hidden].

    places: [B], the position of each row's first new token.
    """
    end = prompter.tokenizer.eos_token_id
    written: list[list[int]] = [[] for _ in hidden]
    open_rows = set(range(len(hidden)))
    for _ in range(max_tokens):
        token = _logits(model, hidden).argmax(-1)
        for row in list(open_rows):
            if token[row] == end:
                open_rows.discard(row)
            else:
                written[row].append(int(token[row]))
        if not open_rows:
            break
        x = model.language_model.embed_tokens(token)[:, None]
        hidden = _run(model, x, places.expand(3, -1)[..., None], cache)[:, 0]
        places = places + 1
    return written


def _run(
    model: MiniVL,
    x: Tensor,
    positions: Tensor,
    cache: Cache,
    observe: Observer | None = None,
) -> Tensor:
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
        x = x + _attention(layer.self_attn, normed, cos, sin, bias, cache, number, observe)
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
    observe: Observer | None,
) -> Tensor:
    q, k, v = attention.project(x, cos, sin)
    length = cache.length
    cache.entries[number, 0, :, :, length - x.shape[1] : length] = k
    cache.entries[number, 1, :, :, length - x.shape[1] : length] = v
    k, v = cache.entries[number, :, :, :, :length]
    if observe is not None:
        observe(number, q, k, bias)
    b, heads, new, width = q.shape
    q = q.reshape(b, attention.kv_heads, -1, width)
    share = heads // attention.kv_heads
    out = attend(q, k, v, bias.repeat(1, 1, share, 1)).reshape(b, heads, new, width)
    return attention.o_proj(out.transpose(1, 2).flatten(2))
