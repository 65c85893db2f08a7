"""New weights while the server runs: the target takes them, the draft keeps its own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import Clips, Servers
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, flush, request


def load(server: LocalServer, model: Path) -> bool:
    told = server.post("/update_weights_from_disk", {"model_path": str(model)}).json()
    return bool(told["success"])


def test_a_draft_of_another_width_does_not_take_the_targets_weights(
    servers: Servers, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    text = request(chat("new weights"), 100, ignore_eos=True)
    # A new clip: the host's cache of visual features outlives an update.
    clip = write_clip(tmp_path / "new.mp4", moving_square(16, seed=11))
    video = request(chat(VIDEO + "new weights"), 100, video=clip, ignore_eos=True)
    before = answer(servers.alone, text)
    try:
        for server in (servers.alone, servers.other):
            flush(server)  # an update fails that cannot
            assert load(server, checkpoints["near"])
        after = answer_all(servers.alone, [text, video])
        assert after[0] != before
        assert answer_all(servers.other, [text, video]) == after
    finally:
        for server in (servers.alone, servers.other):
            flush(server)
            assert load(server, checkpoints["target"])
    assert answer(servers.other, text) == before


def test_requests_paused_for_an_update_go_on_as_the_target_would(
    servers: Servers, checkpoints: dict[str, Path], clips: Clips
) -> None:
    users = [
        request(chat(f"{VIDEO}paused {n}"), 200, video=clips.short, ignore_eos=True)
        for n in range(4)
    ]
    wanted = answer_all(servers.alone, users)
    with ThreadPoolExecutor() as pool:
        others = pool.submit(answer_all, servers.other, users[1:])
        events = servers.other.stream(**users[0])
        next(events)
        servers.other.post("/pause_generation", {"mode": "retract"})
        assert load(servers.other, checkpoints["target"])
        servers.other.post("/continue_generation", {})
        *_, last = events
    assert last["output_ids"] == wanted[0]["ids"][0]
    assert others.result() == wanted[1:]
