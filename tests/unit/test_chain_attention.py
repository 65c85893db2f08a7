"""The split verify attention, run by a torch executor of its plans, against dense attention."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvspec_sglang.attention.chain import Call, Calls, ChainAttention, Shape, bundle
from lvspec_sglang.attention.chain_backend import ChainBackend
from lvspec_sglang.attention.chain_plan import Context, groups, readers, split, whole
from lvspec_sglang.attention.masses import Masses
from lvspec_sglang.attention.variants import PLAIN, SCORED, SHARED, GraphVariants
from lvspec_sglang.relevance.attention import AttentionMass
from lvspec_sglang.relevance.random import RandomScores
from tests.torch_paged import TorchPaged, merge

WIDTH, HEADS, KV_HEADS, DIM, TABLE = 4, 4, 2, 8, 700
SHAPE = Shape(HEADS, KV_HEADS, DIM, torch.float32, torch.float32)
LAYER = SimpleNamespace(layer_id=7, scaling=DIM**-0.5, logit_cap=0.0)


def make_calls(batch: int) -> Calls:
    calls = (Call(TorchPaged, SHAPE, None) for _ in range(3))
    return bundle(calls, batch * WIDTH, "cpu")


class World:
    """Requests with KV at arbitrary slots; those with equal prefixes share their first slots."""

    def __init__(self, contexts: list[Context], seq_lens: list[int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = 1 + max(context.row for context in contexts)
        slots = torch.randperm(rows * TABLE, generator=generator)
        self.table = slots.view(rows, TABLE).int()
        leaders: dict[object, Context] = {}
        for context in contexts:
            if context.prefix is not None:
                leader = leaders.setdefault(context.prefix, context)
                stop = context.spans[-1][1]
                self.table[context.row, :stop] = self.table[leader.row, :stop]
        self.contexts, self.seq_lens = contexts, seq_lens
        kv = torch.randn(2, rows * TABLE, KV_HEADS, DIM, generator=generator)
        self.cache = kv[0], kv[1]
        self.q = torch.randn(len(contexts) * WIDTH, HEADS, DIM, generator=generator)

    def dense(self) -> torch.Tensor:
        """Each request's attention over its whole row, one by one."""
        outputs = []
        for i, (context, seq_len) in enumerate(zip(self.contexts, self.seq_lens, strict=True)):
            length = seq_len + WIDTH
            slots = self.table[context.row, :length].long()
            k, v = (c[slots].repeat_interleave(HEADS // KV_HEADS, 1) for c in self.cache)
            q = self.q[i * WIDTH : (i + 1) * WIDTH]
            logits = torch.einsum("qhd,khd->hqk", q, k) * LAYER.scaling
            visible = torch.ones(WIDTH, length, dtype=torch.bool).tril_(seq_len)
            logits = logits.masked_fill(~visible, float("-inf"))
            outputs.append(torch.einsum("hqk,khd->qhd", logits.softmax(-1), v))
        return torch.cat(outputs)

    def attend(self, shared: bool, padding: int) -> torch.Tensor:
        """The planned attention, in a batch padded as a graph's is."""
        batch = len(self.contexts) + padding
        attention = ChainAttention(self.table, merge)
        lens = self.seq_lens + [1] * padding
        attention.plan(make_calls(batch), self.contexts, lens, shared, WIDTH)
        q = torch.cat([self.q, torch.zeros(padding * WIDTH, HEADS, DIM)])
        return attention.forward(q, self.cache, LAYER)[: len(self.q)]


def check(world: World) -> None:
    expected = world.dense()
    for shared in (False, True):
        for padding in (0, 2):
            found = world.attend(shared, padding)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("contexts", "seq_lens"),
    [
        ([Context(0)], [5]),
        ([Context(0, ((0, 5),))], [5]),
        ([Context(1, ((2, 9), (9, 12), (20, 31)))], [40]),
        ([Context(2, ((3, 20),)), Context(0), Context(1, ((1, 2), (4, 7)))], [33, 3, 7]),
        ([Context(0, ((3, 20),), "a"), Context(2, ((3, 20),), "a")], [33, 25]),
        (
            [
                Context(3, ((3, 20), (25, 30)), "a"),
                Context(1),
                Context(2, ((0, 8),), "b"),
                Context(0, ((3, 20), (25, 30)), "a"),
                Context(5, ((0, 8),), "b"),
                Context(4, ((0, 8),)),
                Context(6, ((3, 20), (25, 30)), "a"),
            ],
            [33, 4, 9, 40, 8, 20, 31],
        ),
    ],
    ids=["no video", "prompt ends in video", "many spans", "mixed", "one group", "groups"],
)
def test_the_parts_give_the_whole(contexts: list[Context], seq_lens: list[int]) -> None:
    check(World(contexts, seq_lens))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_batch(data: st.DataObject) -> None:
    contexts: list[Context] = []
    seq_lens = []
    kinds = data.draw(
        st.lists(st.sampled_from(["alone", "a", "b", "text"]), min_size=1, max_size=6)
    )
    shapes = {}
    for row, kind in enumerate(kinds):
        edges = st.lists(st.integers(0, 40), min_size=2, max_size=6, unique=True).map(sorted)
        edge = shapes.setdefault(kind if kind in "ab" else row, data.draw(edges))
        spans = tuple(zip(edge[::2], edge[1::2], strict=False))
        spans = () if kind == "text" else spans
        contexts.append(Context(row, spans, kind if kind in "ab" else None))
        end = spans[-1][1] if spans else 1
        seq_lens.append(end + data.draw(st.integers(0, 20)))
    check(World(contexts, seq_lens, seed=len(kinds)))


def test_a_chain_beyond_the_table_leaves_the_others_right() -> None:
    contexts = [Context(0, ((3, 600),), "a"), Context(1, ((3, 600),), "a")]
    world = World(contexts, [TABLE - WIDTH, TABLE - WIDTH])
    expected = world.dense()
    world.seq_lens[1] = TABLE - 1  # its first token is the last that the table holds
    for shared in (False, True):
        found = world.attend(shared, padding=0)
        torch.testing.assert_close(found[:WIDTH], expected[:WIDTH], rtol=1e-4, atol=1e-5)


def test_a_wrapper_is_made_when_it_is_first_planned() -> None:
    contexts = [Context(0, ((3, 20),), "a"), Context(1, ((3, 20),), "a")]
    world = World(contexts, [33, 25])
    attention, calls = ChainAttention(world.table, merge), make_calls(2)
    for shared, made in ((False, ["whole"]), (True, ["whole", "video", "rest"])):
        attention.plan(calls, contexts, world.seq_lens, shared, WIDTH)
        names = ("whole", "video", "rest")
        assert [name for name in names if "wrapper" in vars(getattr(calls, name))] == made


def test_keys_are_divided_as_the_shape_says() -> None:
    call = Call(TorchPaged, SHAPE._replace(piece=512), None)
    call.plan(whole([Context(0)], [9], WIDTH), torch.zeros(1, 20, dtype=torch.int32))
    assert call.wrapper.piece == 512
    replanned: dict[str, Any] = {}
    call.fast_plan = lambda *arguments, **options: replanned.update(options)
    call.plan(whole([Context(0)], [9], WIDTH), torch.zeros(1, 20, dtype=torch.int32))
    assert replanned["fixed_split_size"] == 512


def test_a_group_reads_its_video_once() -> None:
    video = ((10, 500),)
    contexts = [Context(i, video, "a") for i in range(3)] + [Context(3, video)]
    assert groups(contexts) == [[0, 1, 2], [3]]
    assert readers([*contexts, Context(9)]) == [3, 1]
    assert groups([Context(0, video, "a"), Context(1, ((10, 400),), "a")]) == [[0], [1]]
    parts = split(contexts, [600] * 4, WIDTH)
    assert parts.video.kv_lens == [490, 490, 0, 0]
    assert parts.video.qo_lens == [3 * WIDTH, WIDTH, 0, 0]
    assert sum(whole(contexts, [600] * 4, WIDTH).kv_lens) == 4 * (600 + WIDTH)
    assert sum(parts.rest.kv_lens) == 4 * (600 + WIDTH - 490)


def test_what_a_batch_needs() -> None:
    scorer = AttentionMass((0,))
    alone = [Context(0, ((0, 600),), "a"), Context(1, ((0, 600),), "b"), Context(2, ((0, 600),))]
    both = [Context(0, ((0, 600),), "a"), Context(1, ((0, 600),), "a")]
    few = [Context(0, ((0, 60),), "a"), Context(1, ((0, 60),), "a")]

    def labels(variants: GraphVariants) -> list[str]:
        batches = (
            SimpleNamespace(spec_info=SimpleNamespace(contexts=c)) for c in (alone, both, few)
        )
        return [variants.select(batch) for batch in batches]

    backend = ChainBackend()
    assert not backend.shares(both)
    backend.share_from = 600
    flashinfer, other = GraphVariants(scorer, backend.shares), GraphVariants(scorer)
    assert flashinfer.capture_labels == (SHARED, SCORED, PLAIN)
    assert other.capture_labels == (SCORED, PLAIN)
    assert GraphVariants(RandomScores(())).capture_labels == (PLAIN,)
    assert labels(flashinfer) == [PLAIN, SHARED, PLAIN]
    assert labels(other) == [PLAIN] * 3
    scorer.listening = True
    assert labels(flashinfer) == [SCORED, SHARED, SCORED]
    assert labels(other) == [SCORED] * 3


def test_a_video_beyond_the_context_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="visual tokens up to 9 in a context of 5"):
        split([Context(0, ((0, 9),))], [5], WIDTH)


def test_masses_reach_the_scorer() -> None:
    scorer = AttentionMass((3, 7))
    masses = Masses(scorer, queries=8, heads=2, device=torch.device("cpu"))
    for layer, values in ((3, [[0.1, 0.3], [0.4, 0.4]]), (7, [[0.4, 0.4], [0.6, 1.0]])):
        masses.of(layer, 2)[0].copy_(torch.tensor(values))
    masses.report(2)
    torch.testing.assert_close(scorer.scores(torch.tensor([0]), 2, 10), torch.tensor([[0.3, 0.6]]))
