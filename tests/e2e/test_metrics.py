"""What a running server tells of itself: Prometheus and ``/server_info``."""

import re

from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import Clips, Servers
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, request
from tests.e2e.test_relaxed import relaxed
from tests.unit.test_counters import DASHBOARD, names


def samples(server: LocalServer) -> dict[str, float]:
    """Every sample of ``/metrics`` by its name and labels."""
    lines = server.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def families(server: LocalServer) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", server.get("/metrics").text, flags=re.MULTILINE))


def test_every_metric_is_served_beside_the_hosts_own(servers: Servers, clips: Clips) -> None:
    servers.near.generate(**relaxed(clips, "metrics", preset="paper"))
    for server in (servers.near, servers.alone):
        answer(server, request(chat("metrics")))
    served = {name.split("{")[0] for name in samples(servers.near)}
    assert names() <= served
    assert families(servers.alone) <= families(servers.near)
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    hosts_own = {name for expr in asked for name in re.findall(r"sglang:\w+", expr)}
    assert hosts_own and hosts_own <= served


def test_the_figures_of_a_relaxed_answer(servers: Servers, clips: Clips) -> None:
    def grown() -> dict[str, float]:
        after = samples(servers.near)
        return {name: value - before.get(name, 0.0) for name, value in after.items()}

    before = samples(servers.near)
    meta = servers.near.generate(**relaxed(clips, "figures", preset="paper"))["meta_info"]
    gained = grown()
    for kind, count in meta["lvspec"].items():
        assert gained.get(f'lvspec_tokens_total{{kind="{kind}"}}', 0) == count, kind
    rounds = gained['lvspec_rounds_total{decoding="drafted"}']
    assert rounds == gained["lvspec_accept_length_count"] == meta["spec_verify_ct"]
    assert gained["lvspec_drafted_tokens_total"] == 10 * rounds
    # The prompt's last forward gave the first token.
    assert gained["lvspec_accept_length_sum"] == meta["completion_tokens"] - 1
    assert gained["lvspec_relevance_count"] >= rounds
    assert gained['lvspec_visual_tokens_total{draft="dropped"}'] > 16
    assert gained['lvspec_visual_tokens_total{draft="kept"}'] > 4
    assert gained["lvspec_draft_prefill_seconds_count"] == 1
    assert samples(servers.near)["lvspec_threshold"] > 0


def test_eight_users_on_one_video_share_its_prefix(servers: Servers, clips: Clips) -> None:
    users = [request(chat(f"{VIDEO}user {n}"), 40, video=clips.short) for n in range(8)]
    before = samples(servers.near)
    answer_all(servers.near, users)
    after = samples(servers.near)
    found, up_to_4, up_to_8 = (
        after[name] - before.get(name, 0.0)
        for name in (
            "lvspec_shared_prefix_groups_count",
            'lvspec_shared_prefix_groups_bucket{le="4.0"}',
            'lvspec_shared_prefix_groups_bucket{le="8.0"}',
        )
    )
    assert up_to_4 < found == up_to_8


def test_server_info_tells_the_same(servers: Servers) -> None:
    told = servers.near.scheduler_state()["lvspec"]
    assert told.pop("draft_length")
    assert told.pop("reference_scores") == [], "nobody measured this target"
    served = samples(servers.near)
    assert told.items() <= served.items()


def test_plain_rounds_are_counted_and_caught_up_on(servers: Servers, clips: Clips) -> None:
    """``other`` changes the length every few rounds; its answers are compared in test_identity."""
    before = samples(servers.other)
    asked = [
        request(chat(VIDEO + "length"), 60, video=clips.short, ignore_eos=True),
        request(chat("length"), 60, ignore_eos=True),
    ]
    assert answer_all(servers.other, asked) == answer_all(servers.alone, asked)
    after = samples(servers.other)
    for name in (
        'lvspec_rounds_total{decoding="plain"}',
        'lvspec_rounds_total{decoding="drafted"}',
        "lvspec_draft_prefill_tokens_total",
    ):
        assert after[name] > before.get(name, 0.0), name
    speeds = servers.other.scheduler_state()["lvspec"]["draft_length"]["1"]["tokens_per_second"]
    assert list(speeds) == ["10", "5", "2", "1", "0"]
    assert all(speed > 0 for speed in speeds.values())
