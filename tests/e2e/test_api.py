"""The server's other faces: OpenAI chat, streaming, bad input, aborts, figures, memory."""

import base64
import functools
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from lvspec_sglang.bench.decoding import Unmeasured
from lvspec_sglang.bench.device_idle import device_idle, profile
from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import Clips, Servers
from tests.e2e.prompts import VIDEO, answer, chat, request


@pytest.fixture(scope="module")
def file_url(clips: Clips) -> Iterator[str]:
    """A loopback HTTP server over the clips' folder."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(clips.short.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def ask_openai(server: LocalServer, part: dict[str, Any], **more: Any) -> requests.Response:
    message = {"role": "user", "content": [part, {"type": "text", "text": "what is it?"}]}
    return server.post(
        "/v1/chat/completions",
        {"model": "x", "messages": [message], "temperature": 0, "max_tokens": 24, **more},
    )


def video_part(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def test_openai_chat_takes_a_file_a_data_url_and_an_address(
    servers: Servers, clips: Clips, file_url: str
) -> None:
    encoded = base64.b64encode(clips.short.read_bytes()).decode()
    urls = (
        str(clips.short), f"data:video/mp4;base64,{encoded}", f"{file_url}/{clips.short.name}",
    )  # fmt: skip
    want = ask_openai(servers.alone, video_part(urls[0])).json()["choices"][0]["message"]
    for url in urls:
        got = ask_openai(servers.near, video_part(url))
        assert got.ok, got.text
        assert got.json()["choices"][0]["message"] == want


def test_openai_chat_takes_an_image(servers: Servers, clips: Clips) -> None:
    encoded = base64.b64encode(clips.picture.read_bytes()).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
    want, got = (ask_openai(server, part).json() for server in (servers.alone, servers.near))
    assert got["choices"] == want["choices"]


def test_streaming_adds_up_to_the_whole_answer(servers: Servers, clips: Clips) -> None:
    payload = request(chat(VIDEO + "stream"), video=clips.short)
    events = list(servers.near.stream(**payload))
    assert len(events) > 2
    assert events[-1]["output_ids"] == answer(servers.alone, payload)["ids"][0]


@pytest.mark.parametrize("name", ["bikes", "carphone"])
def test_real_clips(servers: Servers, clips: Clips, name: str) -> None:
    payload = request(chat(VIDEO + "real"), tokens=12, video=getattr(clips, name))
    assert answer(servers.near, payload) == answer(servers.alone, payload)


@pytest.mark.parametrize("kind", ["truncated", "not a video", "empty", "one frame"])
def test_a_bad_video_is_the_clients_error_and_hurts_nobody(
    servers: Servers, clips: Clips, tmp_path: Path, kind: str
) -> None:
    whole = clips.long.read_bytes()
    content = {
        "truncated": whole[: len(whole) // 2],
        "not a video": b"this is not a video, it is a sentence. " * 40,
        "empty": b"",
        "one frame": clips.one_frame.read_bytes(),
    }[kind]
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(content)
    response = servers.near.post("/generate", request(chat(VIDEO + "bad"), video=bad))
    assert 400 <= response.status_code < 500, (response.status_code, response.text)
    assert len(response.text) > 20, "the refusal gives no reason"
    good = request(chat(VIDEO + "what is it?"), video=clips.short)
    assert answer(servers.near, good) == answer(servers.alone, good)


def test_an_abort_in_the_middle_leaves_the_next_request_right(
    servers: Servers, clips: Clips
) -> None:
    payload = request(chat(VIDEO + "abort"), tokens=400, video=clips.long, ignore_eos=True)
    events = servers.other.stream(**payload, rid="doomed")
    next(events)
    servers.other.post("/abort_request", {"rid": "doomed"}).raise_for_status()
    last = list(events)[-1]
    assert last["meta_info"]["finish_reason"]["type"] == "abort"
    good = request(chat(VIDEO + "what is it?"), video=clips.short)
    assert answer(servers.other, good) == answer(servers.alone, good)


def test_figures_of_speculation(servers: Servers) -> None:
    payload = request(chat("figures"), tokens=56, ignore_eos=True)
    meta = servers.same.generate(**payload)["meta_info"]
    assert meta["completion_tokens"] == 56
    assert meta["spec_verify_ct"] == 5
    assert meta["spec_num_proposed_drafts"] == 50
    assert meta["spec_accept_length"] == pytest.approx(56 / 5)
    assert servers.same.scheduler_state()["avg_spec_accept_length"] > 5
    metrics = servers.same.get("/metrics").text
    assert "sglang:prompt_tokens_total{" in metrics, "figures of the host's main process are lost"
    lines = [line for line in metrics.splitlines() if line.startswith("sglang:spec_accept_length")]
    assert lines, "Prometheus has no sglang:spec_accept_length"
    assert float(lines[0].rsplit(" ", 1)[1]) > 5


def test_the_hosts_profile_can_be_read(servers: Servers, tmp_path: Path) -> None:
    asked = request(chat("profile"), tokens=4, ignore_eos=True)
    events = profile(servers.near, asked, tmp_path, activity="CPU")
    assert {"aten::embedding", "aten::argmax"} <= {event.get("name") for event in events}
    with pytest.raises(Unmeasured, match="no round"):
        device_idle(events)


def test_sampling_keeps_the_targets_distribution(servers: Servers) -> None:
    """First two sampled tokens, 600 draws a server; the second one went through a verify."""
    payload = request(chat("dice"), tokens=2, top_k=3, n=600, ignore_eos=True)
    payload["sampling_params"]["temperature"] = 0.8
    counts: list[dict[tuple[int, ...], int]] = []
    for server in (servers.alone, servers.near):
        drawn = [tuple(result["output_ids"]) for result in server.generate(**payload)]
        counts.append({pair: drawn.count(pair) for pair in set(drawn)})
    statistic = sum(
        (counts[0].get(pair, 0) - counts[1].get(pair, 0)) ** 2
        / (counts[0].get(pair, 0) + counts[1].get(pair, 0))
        for pair in counts[0].keys() | counts[1].keys()
    )
    # At most nine pairs: the 99.9999 % quantile of chi-squared with eight degrees of freedom.
    assert statistic < 42.7, counts


def test_retraction_did_happen(servers: Servers) -> None:
    servers.other.generate(**request(chat("retract"), tokens=60, ignore_eos=True))
    assert "retract" in servers.other.log.read_text().lower()


def test_the_kv_pool_is_whole_again(servers: Servers) -> None:
    """Runs last in this file: every slot is free after a flush, and no scheduler complained."""
    for name, server in vars(servers).items():
        deadline = time.monotonic() + 30
        while not server.post("/flush_cache", {}).ok and time.monotonic() < deadline:
            time.sleep(0.5)
        loads = server.get("/v1/loads").json()["loads"]
        assert [load["num_used_tokens"] for load in loads] == [0], name
        assert "memory leak" not in server.log.read_text(), name
