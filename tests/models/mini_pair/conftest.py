"""The mini pair's servers, the target alone and LVSPEC, and clips that neither ever saw."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang.cli import main
from lvspec_sglang.miniworld import paths
from lvspec_sglang.serving import LocalServer, together

CLIPS = 4


@pytest.fixture(scope="package")
def pair() -> Iterator[dict[str, LocalServer]]:
    target, draft = paths()
    common = ("--dtype", "float32", "--random-seed", "1")
    servers = {
        "alone": LocalServer(target, *common),
        "lvspec": LocalServer(
            target, *common, "--speculative-algorithm", "LVSPEC",
            "--speculative-draft-model-path", str(draft), "--lvspec-config", '{"preset": "strict"}',
            env={"LVSPEC_CHECK_DRAFT_KV": "1"},
        ),
    }  # fmt: skip
    with together(*servers.values()):
        yield servers


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    sample = ["miniworld", "sample", "--clips", str(CLIPS), "--seed", "7000", "--out", str(folder)]
    assert main(sample) == 0
    return folder


def truths(world: Path) -> list[dict[str, Any]]:
    """The lines of a sample's ``truth.jsonl``."""
    return [json.loads(line) for line in (world / "truth.jsonl").read_text().splitlines()]
