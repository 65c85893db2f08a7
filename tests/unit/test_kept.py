"""What the draft keeps is chosen once a video, seen through the target's chunked prefill."""

from collections.abc import Hashable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.managers.schedule_batch import MM_PAD_SHIFT_VALUE

from lvspec_sglang.config import LVSpecConfig
from lvspec_sglang.draft import kept as kept_module
from lvspec_sglang.draft.kept import Kept, KeptTable, KeptTokens
from lvspec_sglang.draft.vision import Span
from lvspec_sglang.pruning import Grid
from lvspec_sglang.pruning.uniform import Uniform
from lvspec_sglang.pruning.verifier import AttentionReceived

HEADS, KV_HEADS, DIM, LAYERS, SLOTS = 4, 2, 8, 4, 256


class Attention(RadixAttention):
    """The host's module as the hooks see it, without a backend behind it."""

    def forward(self, q: torch.Tensor, k: Any, v: Any, forward_batch: Any) -> torch.Tensor:
        return q


class SelfAttention(torch.nn.Module):
    def __init__(self, layer: int) -> None:
        super().__init__()
        self.attn = Attention(HEADS, DIM, 0.3, KV_HEADS, layer)

    def forward(self, positions: Any, hidden_states: torch.Tensor, forward_batch: Any) -> Any:
        return self.attn(hidden_states, None, None, forward_batch)


class Target:
    """A target whose queries, keys and hidden states depend on the token and layer alone."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        layers = [SimpleNamespace(self_attn=SelfAttention(layer)) for layer in range(LAYERS)]
        self.decoder = SimpleNamespace(layers=layers)
        self.states = torch.randn(LAYERS, 100, HEADS * DIM, generator=generator)
        self.keys = torch.randn(LAYERS, 100, KV_HEADS, DIM, generator=generator)
        self.buffers = torch.full((LAYERS, SLOTS, KV_HEADS, DIM), float("nan"))
        self.table = torch.randperm(SLOTS, generator=generator)[:200].view(2, 100)
        self.runner = SimpleNamespace(
            model=self.decoder, device="cpu", max_total_num_tokens=SLOTS,
            req_to_token_pool=SimpleNamespace(req_to_token=self.table),
            token_to_kv_pool=SimpleNamespace(get_key_buffer=lambda layer: self.buffers[layer]),
        )  # fmt: skip

    def prefill(self, reqs: list[Any]) -> None:
        """One forward over the reqs' chunks, as the host batches them."""
        for layer, module in enumerate(self.decoder.layers):
            parts = []
            for req in reqs:
                fed = req.full_untruncated_fill_ids[req.prefix_len : req.extend_end]
                ids = [token % MM_PAD_SHIFT_VALUE for token in fed]
                slots = self.table[req.kv.req_pool_idx, req.prefix_len : req.extend_end]
                self.buffers[layer, slots] = self.keys[layer, ids]
                parts.append(self.states[layer, ids])
            module.self_attn(positions=None, hidden_states=torch.cat(parts), forward_batch=None)


class Family:
    spill = 1

    def language_model(self, model: Any) -> Any:
        return model

    def spans(self, mm_inputs: Any) -> list[Span]:
        return mm_inputs.spans

    def grid(self, item: Any, tokens: int) -> Grid:
        return Grid(tokens // 4, 2, 2)


def request(rid: str, row: int, ids: list[int], spans: list[Span], hashes: list[int]) -> Any:
    items = [SimpleNamespace(hash=h, is_video=lambda h=h: h > 0) for h in hashes]
    pads = {place for span in spans for place in range(span.start, span.stop)}
    ids = [token + MM_PAD_SHIFT_VALUE * (place in pads) for place, token in enumerate(ids)]
    return SimpleNamespace(
        rid=rid, kv=SimpleNamespace(req_pool_idx=row), full_untruncated_fill_ids=ids,
        multimodal_inputs=SimpleNamespace(mm_items=items, spans=spans), prefix_len=0, extend_end=0,
    )  # fmt: skip


def video_request(rid: str = "a", row: int = 0, content: int = 7) -> Any:
    """60 tokens of which 10 to 50 are a video."""
    return request(rid, row, list(range(60)), [Span(0, 10, 50, 0)], [content])


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = SimpleNamespace(tp_group=SimpleNamespace(world_size=1))
    monkeypatch.setattr(kept_module, "get_parallel", lambda: ranks)


def make(pruning: str, keep: float, target: Target, at_least: int = 1) -> KeptTokens:
    config = LVSpecConfig(pruning=pruning, keep=keep, keep_at_least=at_least)
    return KeptTokens(config, target.runner, Family())


def prefill(kept: KeptTokens, target: Target, *chunks: list[tuple[Any, int]]) -> None:
    """Prefill each chunk: requests with the position their chunk ends at."""
    for chunk in chunks:
        for req, end in chunk:
            req.prefix_len, req.extend_end = max(req.prefix_len, req.extend_end), end
        reqs = [req for req, _ in chunk]
        with kept.watching(reqs, lambda req: True):
            target.prefill(reqs)


def choice(kept: KeptTokens, req: Any, pinned: frozenset[Hashable] = frozenset()) -> Kept:
    spans = req.multimodal_inputs.spans
    return kept.positions(req, spans, len(req.full_untruncated_fill_ids), pinned)


def choose(kept: KeptTokens, req: Any) -> list[int]:
    return choice(kept, req).positions.tolist()


EVENLY = Uniform().choose(Grid(10, 2, 2), 0.2).tolist()


def of_the_video(positions: list[int]) -> list[int]:
    """Of a ``video_request``."""
    return [place - 10 for place in positions if 10 <= place < 50]


@pytest.mark.parametrize("pruning", ["verifier", "unbiased"])
@pytest.mark.parametrize("cuts", [[5], [10, 50], [30], [7, 20, 33, 52, 59]])
def test_a_prefill_in_chunks_gives_the_choice_of_a_whole_one(pruning: str, cuts: list[int]) -> None:
    choices = []
    for edges in ([60], [*cuts, 60]):
        target = Target()
        kept = make(pruning, 0.2, target)
        req, beside = video_request(), request("b", 1, list(range(60, 100)), [], [])
        beside.multimodal_inputs = None
        # A request without a video runs before it in the first batch.
        prefill(kept, target, [(beside, 40), (req, edges[0])])
        prefill(kept, target, *([(req, end)] for _, end in pairwise(edges)))
        choices.append(choose(kept, req))
    assert choices[0] == choices[1]
    assert [p for p in choices[0] if not 10 <= p < 50] == [*range(10), *range(50, 60)]
    assert len(choices[0]) == 20 + 8
    assert choices[0] != choose(make("uniform", 0.2, Target()), req)


def test_a_video_keeps_its_choice_for_later_turns_and_users() -> None:
    target = Target()
    kept = make("verifier", 0.2, target)
    first = video_request()
    prefill(kept, target, [(first, 60)])
    chosen = choose(kept, first)
    second = request("b", 1, [*range(55), *range(70, 95)], [Span(0, 10, 50, 0)], [7])
    second.prefix_len = second.extend_end = 55
    prefill(kept, target, [(second, 80)])
    again = choice(kept, second)
    assert [p for p in again.positions.tolist() if p < 50] == [p for p in chosen if p < 50]
    assert len(again.chosen) == 0


@pytest.mark.parametrize(("at_least", "kept"), [(5, 8), (12, 12), (40, 40), (512, 40)])
def test_so_many_tokens_are_kept_in_any_case(at_least: int, kept: int) -> None:
    """Of a video of 40 tokens a fifth is 8."""
    chosen = choose(make("uniform", 0.2, Target(), at_least), video_request())
    assert len([p for p in chosen if 10 <= p < 50]) == kept


@pytest.mark.parametrize("pruning", ["verifier", "unbiased"])
@pytest.mark.parametrize(("cached", "seen"), [(10, True), (11, False), (30, False), (50, False)])
def test_a_cached_video_without_a_choice(pruning: str, cached: int, seen: bool) -> None:
    """Somebody's prefill was aborted. Keys in the cache tell what is attended to; the hidden states
    of what is cached are gone, and the video is kept evenly."""
    target = Target()
    whole, req = video_request("whole"), video_request("rest", 1)
    kept = make(pruning, 0.2, target)
    prefill(kept, target, [(whole, 60)])
    wanted = of_the_video(choose(kept, whole))
    assert wanted != EVENLY
    kept = make(pruning, 0.2, target)
    target.table[1] = target.table[0]
    req.prefix_len = req.extend_end = cached
    prefill(kept, target, [(req, 60)])
    given = choice(kept, req)
    found = of_the_video(given.positions.tolist())
    if pruning == "verifier":
        assert found == wanted
    else:
        assert (found == EVENLY) != seen
    assert given.chosen.tolist() == list(range(10, 50)), "draft KV there is of another choice"


@pytest.mark.parametrize("pruning", ["verifier", "unbiased"])
def test_a_new_video_after_a_cached_picture(pruning: str) -> None:
    """It is chosen as if the prompt began where its prefill did."""
    target, ids = Target(), list(range(90))
    spans = [Span(0, 5, 25, 0), Span(1, 50, 78, 0)]
    kept, later = (make(pruning, 0.25, target) for _ in range(2))
    prefill(kept, target, [(req := request("a", 0, ids, spans, [-3, 4]), 40)])
    prefill(later, target, [(req, 90)])
    found = choose(later, req)
    assert len(found) == 90 - 28 + 7
    alone = request("b", 1, ids[40:], [Span(0, 10, 38, 0)], [5])
    if pruning == "verifier":
        alone = request("b", 1, ids, spans, [-3, 5])
    prefill(kept, target, [(alone, len(alone.full_untruncated_fill_ids))])
    shift = 90 - len(alone.full_untruncated_fill_ids)
    wanted = [place + shift for place in choose(kept, alone)]
    assert [p for p in found if p >= 50] == [p for p in wanted if p >= 50]


@pytest.mark.parametrize("pruning", ["verifier", "unbiased"])
def test_another_prompt_of_the_same_name_begins_anew(pruning: str) -> None:
    """A session's next turn may have the last one's id, and begins where that ended; a retracted
    request is prefilled again from where it was."""
    target = Target()
    kept = make(pruning, 0.2, target)
    first = video_request()
    prefill(kept, target, [(first, 60)])
    choose(kept, first)
    spans = [Span(0, 10, 50, 0), Span(1, 62, 90, 0)]
    second = request("a", 0, list(range(100)), spans, [7, 8])
    second.prefix_len = second.extend_end = 60
    prefill(kept, target, [(second, 100)])
    assert len(choose(kept, second)) == 100 - 40 - 28 + 8 + 6
    again = request("a", 0, list(range(100)), spans, [7, 8])
    again.prefix_len = again.extend_end = 100
    again.full_untruncated_fill_ids.append(3)
    prefill(kept, target, [(again, 101)])
    assert len(choice(kept, again).chosen) == 0


def test_the_watch_hands_over_what_the_target_attends_with() -> None:
    target = Target()
    kept = make("verifier", 0.2, target)
    prefill(kept, target, [(video_request(), 60)])
    visual = (torch.arange(60) >= 10) & (torch.arange(60) < 50)
    directly = AttentionReceived(visual)
    for layer in AttentionReceived.layers(LAYERS):
        queries, keys = target.states[layer, :60].view(-1, HEADS, DIM), target.keys[layer, :60]
        directly.observe(layer, 0, queries, lambda keys=keys: keys, 0.3)
    where = torch.arange(10, 50)
    assert kept.watch is not None
    torch.testing.assert_close(kept.watch.scores("a", where), directly.of(where))


@pytest.mark.parametrize("pruning", ["verifier", "unbiased"])
def test_a_prefill_that_calls_no_hooks_is_kept_evenly(pruning: str) -> None:
    target = Target()
    kept = make(pruning, 0.2, target)
    req = video_request()
    prefill(kept, target, [(req, 30)])
    req.prefix_len, req.extend_end = 30, 60
    with kept.watching([req], lambda req: True):
        pass
    assert of_the_video(choose(kept, req)) == EVENLY


def test_ranks_add_their_heads_and_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    firsts = torch.arange(40).float()
    group = SimpleNamespace(
        world_size=2, all_reduce=lambda mine: mine, broadcast=lambda scores, src: firsts
    )
    monkeypatch.setattr(kept_module, "get_parallel", lambda: SimpleNamespace(tp_group=group))
    target = Target()
    kept = make("unbiased", 0.2, target)
    req = video_request()
    prefill(kept, target, [(req, 60)])
    assert [p for p in choose(kept, req) if 10 <= p < 50] == list(range(42, 50))


def test_pictures_and_text_are_kept_whole() -> None:
    kept = make("uniform", 0.25, Target())
    both = request("a", 0, list(range(60)), [Span(0, 5, 25, 0), Span(1, 30, 50, 0)], [-3, 4])
    chosen = choose(kept, both)
    assert [p for p in chosen if p < 30] == list(range(30))
    assert len([p for p in chosen if 30 <= p < 50]) == 5


def test_frames_that_are_items_of_their_own_are_one_video() -> None:
    """The budget, and what is too short to prune, is the whole video's."""
    frames = [Span(i, 5 + 10 * i, 13 + 10 * i, 0) for i in range(5)]
    apart = request("a", 0, list(range(60)), frames, [1, 2, 3, 4, 5])
    assert len(choose(make("uniform", 0.1, Target()), apart)) == 20 + 5 * 1
    joined = [Span(i, 5 + 9 * i, 13 + 9 * i, 0) for i in range(5)]
    one = request("b", 0, list(range(60)), joined, [1, 2, 3, 4, 5])
    assert len(choose(make("uniform", 0.1, Target()), one)) == 20 + 4
    assert len(choose(make("uniform", 0.1, Target(), at_least=39), one)) == 20 + 39
    assert len(choose(make("uniform", 0.1, Target(), at_least=40), one)) == 60


def test_the_same_video_twice_in_a_prompt_is_pruned_twice() -> None:
    kept = make("uniform", 0.25, Target())
    twice = request("a", 0, list(range(60)), [Span(0, 5, 25, 0), Span(1, 30, 50, 0)], [4, 4])
    chosen = choose(kept, twice)
    first = [p - 5 for p in chosen if 5 <= p < 25]
    assert first == [p - 30 for p in chosen if 30 <= p < 50]
    assert len(first) == 5


def test_one_content_of_two_lengths_is_two_choices() -> None:
    """As of a video that is sampled more sparsely the next time."""
    kept = make("uniform", 0.25, Target())
    sparse = request("b", 1, list(range(60)), [Span(0, 10, 30, 0)], [7])
    assert len(choose(kept, video_request())) == 20 + 10
    assert len(choose(kept, sparse)) == 40 + 5


def test_as_many_videos_are_known_as_the_pool_holds_twice() -> None:
    table = make("uniform", 0.25, Target()).table
    for key in "abc":
        table.put(key, SLOTS, torch.arange(4), ())
    assert ("a" in table, "b" in table, "c" in table) == (False, True, True)


def test_a_video_in_two_spans_is_one_choice() -> None:
    kept = make("uniform", 0.25, Target())
    split = request("a", 0, list(range(60)), [Span(0, 5, 25, 0), Span(0, 30, 50, 20)], [4])
    whole = video_request("b", 1, content=9)
    apart = [
        p - 5 if p < 25 else p - 10 for p in choose(kept, split) if 5 <= p < 25 or 30 <= p < 50
    ]
    assert apart == [p - 10 for p in choose(kept, whole) if 10 <= p < 50]


def test_the_table_forgets_the_least_recently_used_and_never_a_running_one() -> None:
    table = KeptTable(limit_tokens=100)
    for key in ("a", "b"):
        table.put(key, 40, torch.arange(4), ())
    assert table.get("a") is not None
    table.put("c", 40, torch.arange(4), ())
    assert ("a" in table, "b" in table, "c" in table) == (True, False, True)
    table.put("d", 40, torch.arange(4), ("a",))
    assert ("a" in table, "c" in table, "d" in table, table.tokens) == (True, False, True, 80)
    table.put("e", 300, torch.arange(4), ("a", "d"))
    assert all(key in table for key in "ade")
    table.clear()
    assert ("a" in table, table.tokens) == (False, 0)
