"""Servers on the device, in deterministic mode: strict answers are the target's own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvspec_sglang import tiny
from lvspec_sglang.serving import LocalServer
from tests.e2e.conftest import Clips, clips  # noqa: F401  (a fixture)
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, request

# Heads as wide as the kernels of the attention backends take them.
SHAPE = tiny.TinyShape(hidden=512, layers=4, heads=4, kv_heads=2)


@pytest.fixture(scope="module", params=["flashinfer", "fa3", "triton"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalServer, LocalServer]]:
    if request.param == "fa3":
        pytest.importorskip("sgl_kernel.flash_attn")
    folder = tmp_path_factory.mktemp("gpu")
    target = tiny.write_qwen2_5_vl(folder / "target", SHAPE, seed=1)
    draft = tiny.write_perturbed(target, folder / "near", noise=0.02, seed=2)
    common = (
        "--attention-backend", request.param, "--enable-deterministic-inference",
        "--random-seed", "1", "--mem-fraction-static", "0.2", "--dtype", "bfloat16",
        "--decode-log-interval", "1",
    )  # fmt: skip
    lvspec = LocalServer(
        target, *common, "--speculative-algorithm", "LVSPEC",
        "--speculative-draft-model-path", str(draft), "--lvspec-config", '{"preset": "strict"}',
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        servers = LocalServer(target, *common), lvspec
        for server in servers:
            stack.callback(server.stop)
            server.start()
            server.wait_ready()
        yield servers


def test_strict_answers_are_the_targets(
    pair: tuple[LocalServer, LocalServer],
    clips: Clips,  # noqa: F811
) -> None:
    alone, lvspec = pair
    payloads = [
        request(chat("text"), tokens=60, ignore_eos=True),
        request(chat(VIDEO + "one"), video=clips.short),
        request(chat(VIDEO + "two"), video=clips.short),
        request(chat(VIDEO + VIDEO + "both"), video=[clips.short, clips.other]),
        request(chat(VIDEO + "long"), video=clips.long),
    ]
    expected = [answer(alone, payload) for payload in payloads]
    assert [answer(lvspec, payload) for payload in payloads] == expected
    assert answer_all(lvspec, payloads) == expected


def test_relaxed_answers_are_relaxed(
    pair: tuple[LocalServer, LocalServer],
    clips: Clips,  # noqa: F811
) -> None:
    loose = {"custom_params": {"lvspec": {"preset": "paper"}}, "ignore_eos": True}
    meta = pair[1].generate(**request(chat(VIDEO + "x"), 80, video=clips.short, **loose))
    assert meta["meta_info"]["lvspec"]["loose"] > 0


def test_rounds_run_captured_graphs(pair: tuple[LocalServer, LocalServer]) -> None:
    pair[1].generate(**request(chat("graphs"), 60, ignore_eos=True))
    log = Path(pair[1].log).read_text(errors="replace")
    assert "cuda graph: True" in log
    assert "cuda graph: False" not in log
