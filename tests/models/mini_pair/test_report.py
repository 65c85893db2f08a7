"""``lvspec report`` on real runs."""

import json
from pathlib import Path

import pytest

from lvspec_sglang.cli import main
from lvspec_sglang.report.page import render
from lvspec_sglang.report.record import check_record
from lvspec_sglang.serving import LocalServer
from lvspec_sglang.verify.rule import Kind
from tests.models.mini_pair.conftest import truths
from tests.report.browser import Browser, executable


@pytest.fixture(scope="module")
def page(
    pair: dict[str, LocalServer], world: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A page about a relaxed caption; the run is kept beside it."""
    truth, folder = truths(world)[0], tmp_path_factory.mktemp("report")
    done = main(
        [
            "report", "--video", str(world / truth["video"]), "--prompt", truth["caption_prompt"],
            "--preset", "paper", "--url", pair["lvspec"].url,
            "--out", str(folder / "page.html"), "--record", str(folder / "run.json"),
        ]
    )  # fmt: skip
    assert done == 0
    return folder / "page.html"


def test_a_run_is_kept_and_shown(page: Path, world: Path) -> None:
    record = check_record(json.loads(page.with_name("run.json").read_text()))
    assert page.read_text() == render(record)
    trace, relaxed, strict = record["trace"], record["relaxed"], record["strict"]
    assert len(record["frames"]) == 10
    assert "".join(strict["pieces"]).endswith("<|im_end|>")
    assert truths(world)[0]["facts"]["count"] in "".join(strict["pieces"])
    assert Kind.LOOSE in trace["kind"]
    assert relaxed["rounds"] < strict["rounds"]
    for token, kind, drafted, target in zip(
        relaxed["ids"], trace["kind"], trace["drafted"], trace["target"], strict=True
    ):
        assert token == (target if kind in (Kind.TARGET, Kind.BONUS) else drafted)


@pytest.mark.skipif(executable() is None, reason="no browser is installed")
def test_the_pages_rule_decides_as_the_server_did(page: Path) -> None:
    trace = json.loads(page.with_name("run.json").read_text())["trace"]
    with Browser() as browser:
        browser.open(page)
        assert browser.evaluate("now.kinds") == trace["kind"]
        thresholds = "now.thresholds.map((t) => Number.isFinite(t) ? t : null)"
        assert browser.evaluate(thresholds) == trace["threshold"]
        assert browser.errors == []


def test_a_server_without_lvspec_keeps_no_record(
    pair: dict[str, LocalServer],
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = str(world / truths(world)[0]["video"])
    out = tmp_path / "report.html"
    assert main(["report", "--video", video, "--url", pair["alone"].url, "--out", str(out)]) == 2
    assert "keeps no record of its tokens" in capsys.readouterr().err
    assert not out.exists()
