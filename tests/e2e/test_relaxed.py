"""Relaxed verification in a real server: per request, beside strict ones, never past the end."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lvspec_sglang.serving import LocalServer
from lvspec_sglang.verify.rule import Kind
from tests.e2e.conftest import Clips, Servers
from tests.e2e.prompts import IMAGE, VIDEO, answer, answer_all, chat, flush, request


def relaxed_tokens(meta: dict[str, Any]) -> int:
    counts = meta["lvspec"]
    assert sum(counts.values()) == meta["completion_tokens"]
    return counts["loose"] + counts["shift"]


def relaxed(clips: Clips, text: str, tokens: int = 80, **relax: Any) -> dict[str, Any]:
    return request(
        chat(VIDEO + text), tokens, video=clips.short, ignore_eos=True,
        custom_params={"lvspec": relax},
    )  # fmt: skip


@pytest.mark.parametrize("relax", [{"preset": "paper"}, {"loose_ratio": 0.5, "floor": 0.01}])
def test_a_relaxed_request_commits_more_a_round(
    servers: Servers, clips: Clips, relax: dict[str, Any]
) -> None:
    strict, loose = (
        servers.near.generate(**relaxed(clips, "relax", **given))["meta_info"]
        for given in ({"preset": "strict"}, relax)
    )
    assert relaxed_tokens(loose) > 0
    assert relaxed_tokens(strict) == 0
    assert loose["spec_verify_ct"] < strict["spec_verify_ct"]


def test_pictures_alone_are_verified_strictly(servers: Servers, clips: Clips) -> None:
    payload = request(
        chat(IMAGE + "relax"), 60, image=clips.picture, ignore_eos=True,
        custom_params={"lvspec": {"preset": "paper"}},
    )  # fmt: skip
    assert relaxed_tokens(servers.near.generate(**payload)["meta_info"]) == 0
    assert answer(servers.near, payload)["ids"] == answer(servers.alone, payload)["ids"]


def test_kinds_add_up_to_the_rounds(servers: Servers, clips: Clips) -> None:
    meta = servers.near.generate(**relaxed(clips, "count", preset="paper"))["meta_info"]
    own = meta["lvspec"]["target"] + meta["lvspec"]["bonus"]
    # The first token is the prefill's; the last round may be cut off by max_new_tokens.
    assert own - 1 in (meta["spec_verify_ct"], meta["spec_verify_ct"] - 1)
    assert "lvspec_trace" not in meta


def test_the_trace_explains_every_token(servers: Servers, clips: Clips) -> None:
    asked = {"preset": "paper", "floor": 0.0, "trace": True}
    *_, last = servers.near.stream(**relaxed(clips, "trace", **asked))
    meta, trace = last["meta_info"], last["meta_info"]["lvspec_trace"]
    assert "lvspec_tokens" not in meta
    rows = [dict(zip(trace, row, strict=True)) for row in zip(*trace.values(), strict=True)]
    assert len(rows) == meta["completion_tokens"]
    for place, (row, token) in enumerate(zip(rows, last["output_ids"], strict=True)):
        kind = Kind(row["kind"])
        accepted = kind in (Kind.MATCH, Kind.LOOSE, Kind.SHIFT)
        assert token == row["drafted" if accepted else "target"]
        assert (row["drafted"] == row["target"]) == (kind is Kind.MATCH)
        if place == 0 or kind is Kind.BONUS:
            assert row["drafted"] == -1 and row["relevance"] is None
        else:
            assert 0 < row["relevance"] < 1
            low = row["threshold"] is not None and row["relevance"] <= row["threshold"]
            assert accepted or row["guarded"] or not low
            assert kind is not Kind.LOOSE or low


def test_a_strict_trace_has_no_scores(servers: Servers, clips: Clips) -> None:
    """Nor beside a relaxed request, whose rounds are scored."""
    asked = [
        relaxed(clips, "strict trace", preset=preset, trace=True) for preset in ("strict", "paper")
    ]
    with ThreadPoolExecutor(2) as pool:
        strict, loose = pool.map(lambda payload: servers.near.generate(**payload), asked)
    trace = strict["meta_info"]["lvspec_trace"]
    for column in ("relevance", "threshold", "log_ratio", "guarded"):
        assert set(trace[column]) == {None}
        assert len(set(loose["meta_info"]["lvspec_trace"][column])) > 1
    assert max(trace["drafted"]) >= 0


@pytest.mark.parametrize(
    "asks", [{"return_logprob": True}, {"logit_bias": {"70": 1.0}}, {"min_new_tokens": 9}]
)
def test_what_depends_on_every_token_stays_strict(
    servers: Servers, clips: Clips, asks: dict[str, Any]
) -> None:
    """``min_new_tokens`` forbids a stop token that the target would say at once."""
    said = answer(servers.alone, request(chat(VIDEO + "asks"), video=clips.short))["ids"][0]
    given = dict(video=clips.short, stop_token_ids=[said[3]], **asks)
    relax = {"custom_params": {"lvspec": {"preset": "paper"}}}
    alone, meta = (
        server.generate(**request(chat(VIDEO + "asks"), **given, **more))
        for server, more in ((servers.alone, {}), (servers.near, relax))
    )
    assert meta["output_ids"] == alone["output_ids"]
    assert relaxed_tokens(meta["meta_info"]) == 0


def scores(server: LocalServer, payload: dict[str, Any]) -> list[float]:
    trace = server.generate(**payload)["meta_info"]["lvspec_trace"]
    return [-1.0 if score is None else score for score in trace["relevance"] + trace["threshold"]]


def test_scores_and_thresholds_are_the_requests_own(servers: Servers, clips: Clips) -> None:
    """Whoever had the rows and slots before, and wherever the video's KV comes from."""
    asked = relaxed(clips, "whose scores", preset="paper", trace=True)
    flush(servers.near)
    alone = scores(servers.near, asked)
    others = [
        request(
            chat(VIDEO + f"other {n}"), 60, video=clips.other,
            custom_params={"lvspec": {"loose_ratio": 0.9}},
        )
        for n in range(4)
    ]  # fmt: skip
    answer_all(servers.near, others)
    assert scores(servers.near, asked) == pytest.approx(alone, abs=1e-4)
    answer_all(servers.near, others)
    flush(servers.near)
    assert scores(servers.near, asked) == pytest.approx(alone, abs=1e-4)


def test_cosines_follow_the_radix_cache(servers: Servers, clips: Clips) -> None:
    """``same`` scores by cosine: a second user reads what the first one's prefill left."""
    asked = relaxed(clips, "cosine", loose_ratio=0.5, trace=True)
    flush(servers.same)
    first = scores(servers.same, asked)
    assert 0.1 < max(first) < 1.0
    again = servers.same.generate(**asked)["meta_info"]
    assert again["cached_tokens"] > 100
    assert scores(servers.same, asked) == pytest.approx(first, abs=1e-4)


def test_a_retracted_request_keeps_its_scores(servers: Servers, clips: Clips) -> None:
    """``other`` retracts a request every nine rounds; without its scores it would begin anew."""
    several = [relaxed(clips, f"retract {n}", 120, preset="paper", trace=True) for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        metas = [r["meta_info"] for r in pool.map(lambda p: servers.other.generate(**p), several)]
    assert sum(meta["num_retractions"] for meta in metas) > 0
    for meta in metas:
        trace = meta["lvspec_trace"]
        drafted = [
            t for t, s in zip(trace["threshold"], trace["relevance"], strict=True) if s is not None
        ]
        known = next(place for place, threshold in enumerate(drafted) if threshold is not None)
        assert None not in drafted[known:]


def test_strict_requests_beside_relaxed_ones_keep_the_targets_tokens(
    servers: Servers, clips: Clips
) -> None:
    strict = [
        request(chat(VIDEO + "beside"), video=clips.short),
        request(chat("beside, without a video"), custom_params={"lvspec": {"preset": "paper"}}),
        request(
            chat(VIDEO + "json"), video=clips.short, regex=r"[0-9]{3,12}",
            custom_params={"lvspec": {"preset": "paper"}},
        ),
    ]  # fmt: skip
    mixed = [*strict, relaxed(clips, "loose"), relaxed(clips, "looser", loose_ratio=1.0)]
    assert answer_all(servers.near, mixed)[:3] == [answer(servers.alone, each) for each in strict]


def test_the_end_is_never_drafted_away(servers: Servers, clips: Clips) -> None:
    """Every position is loose; where the target would end, the answer ends."""
    payload = request(
        chat(VIDEO + "end"), 200, video=clips.short, custom_params={"lvspec": {"loose_ratio": 1.0}}
    )
    free = {**payload, "sampling_params": {**payload["sampling_params"], "ignore_eos": True}}
    said = servers.near.generate(**free)["output_ids"]
    stop = said[40]
    payload["sampling_params"]["stop_token_ids"] = [stop, -5, 1 << 63]  # two that no token has
    payload["sampling_params"]["custom_params"]["lvspec"]["trace"] = True
    meta = servers.near.generate(**payload)["meta_info"]
    assert meta["finish_reason"]["type"] == "stop"
    assert meta["lvspec_trace"]["kind"][-1] not in (Kind.LOOSE, Kind.SHIFT)


def test_a_misspelt_key_is_the_clients_error_and_hurts_nobody(
    servers: Servers, clips: Clips
) -> None:
    response = servers.near.post("/generate", relaxed(clips, "oops", losse_ratio=0.5))
    assert response.status_code == 400
    assert "unknown lvspec key 'losse_ratio'; allowed are" in response.text
    good = request(chat(VIDEO + "what is it?"), video=clips.short)
    assert answer(servers.near, good) == answer(servers.alone, good)
