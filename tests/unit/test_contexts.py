"""What a verify forward may know of its requests without asking the device."""

from types import SimpleNamespace
from typing import Any

from lvspec_sglang.attention.chain_plan import Context
from lvspec_sglang.config import PRESETS, RelaxConfig, RequestConfig
from lvspec_sglang.following import Followed, Following, prompt_digest

SPANS = ((2, 5), (7, 9))


def make_req(row: int, owned: int) -> Any:
    return SimpleNamespace(kv=SimpleNamespace(req_pool_idx=row, cache_protected_len=owned))


def test_requests_share_what_the_radix_cache_owns_of_the_same_prompt() -> None:
    following = Following(None, None, None, steps=3)  # type: ignore[arg-type]
    same, other = prompt_digest(range(9), None), prompt_digest(range(1, 10), None)
    reqs = [make_req(row, owned) for row, owned in ((4, 12), (1, 9), (2, 8), (3, 30), (0, 9))]
    for req, prefix in zip(reqs, (same, same, same, other), strict=False):
        spans = SPANS if req.kv.req_pool_idx != 3 else ((2, 9),)
        following.by_row[req.kv.req_pool_idx] = Followed(
            req, None, RequestConfig(RelaxConfig()), spans, prefix, frozenset()  # type: ignore[arg-type]
        )  # fmt: skip
    assert following.contexts(reqs) == [
        Context(4, SPANS, same),
        Context(1, SPANS, same),
        Context(2, SPANS, None),
        Context(3, ((2, 9),), other),
        Context(0),
    ]


def test_what_requests_ask_for_is_told_in_their_order() -> None:
    following = Following(None, None, None, steps=3)  # type: ignore[arg-type]
    reqs = [make_req(row, 0) for row in (4, 1, 2)]
    for row, relax, trace in ((4, PRESETS["paper"], False), (2, RelaxConfig(), True)):
        following.by_row[row] = Followed(
            reqs[0], None, RequestConfig(relax, trace), (), None, frozenset()  # type: ignore[arg-type]
        )  # fmt: skip
    asked = following.asked(reqs)
    assert asked.speculated == [True, False, True]
    assert asked.relaxed == [True, False, False]
    assert asked.traced == [False, False, True]


def test_a_prompt_is_known_by_its_ids_and_its_key_space() -> None:
    pads = [5, 1 << 61, 1 << 61, 7]
    assert prompt_digest(pads, None) == prompt_digest(list(pads), None)
    others = [prompt_digest(pads, "key"), prompt_digest(pads[:3], None), prompt_digest([5], None)]
    assert prompt_digest(pads, None) not in others
    assert prompt_digest(pads, "one", None) != prompt_digest(pads, None, "one")
