"""A few seconds of the bench's random traffic against the servers that check the draft's KV."""

import pytest

from lvspec_sglang.bench.traffic import Traffic
from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import Clips, Servers


@pytest.mark.parametrize("draft", ["near", "other"])
def test_random_traffic_is_answered_right_and_frees_its_kv(
    servers: Servers, clips: Clips, draft: str
) -> None:
    server: LocalServer = getattr(servers, draft)
    traffic = Traffic(server, servers.alone, [clips.short, clips.other, clips.long], seed=5)
    traffic.run(seconds=8)
    assert not traffic.wrong
    assert traffic.counts["right"] >= 6
    assert traffic.leaked() == 0
