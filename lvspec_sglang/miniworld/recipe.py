"""How the pair is made: the stages, in order, and the walk through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from lvspec_sglang.miniworld.checkpoint import load_weights, save_checkpoint
from lvspec_sglang.miniworld.model import MODEL_SIZES, padded_vocab
from lvspec_sglang.miniworld.tokenizer import train_tokenizer
from lvspec_sglang.miniworld.train import Learner, Stage, grow, train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Chapter:
    """A stage with its name, its depth, and the chapter whose weights it starts from."""

    name: str
    layers: int
    after: str
    stage: Stage


BOTH = ("target", "draft")
GROWN = Stage(400, batch=8, rate=2e-3, tracks=0.7, facts=3.0, habits=("target",), seed=6)
RECIPE = (
    Chapter("tower", 2, "", Stage(260, words=0.0, cells=1.0, decay=0.2, busy=False, seed=1)),
    Chapter("base", 2, "tower", Stage(600, habits=BOTH, busy=False, seed=2)),
    Chapter(
        "draft",
        2,
        "base",
        Stage(500, batch=8, rate=2e-3, tracks=0.5, warmup=20, decay=0.7, habits=("draft",), seed=3),
    ),
    Chapter(
        "grown",
        6,
        "base",
        replace(GROWN, steps=200, batch=16, rate=2.5e-3, tracks=1.0, busy=False, seed=4),
    ),
    Chapter("grown-small-batch", 6, "grown", replace(GROWN, busy=False)),
    Chapter("grown-busy", 6, "grown-small-batch", replace(GROWN, steps=200, warmup=20, seed=7)),
    Chapter(
        "settled",
        6,
        "grown-busy",
        replace(GROWN, steps=1100, cells=0.1, tracks=0.5, warmup=10, decay=1.0, seed=8),
    ),
    Chapter(
        "target",
        14,
        "settled",
        replace(GROWN, steps=300, rate=8e-4, cells=0.1, tracks=0.3, warmup=10, decay=1.0, seed=9),
    ),
)
"""The run that made the package's pair. Tower first, by what each of its tokens shows; then a
shallow model that both start from; the target grows twice, and takes its full depth last."""


def make_pair(
    out: Path,
    run: Path,
    device: str = "cpu",
    longer: float = 1.0,
    compiled: bool = True,
    log: Callable[[str], None] = print,
) -> None:
    """Walk through RECIPE and write both checkpoints under `out`.

    `run` keeps each chapter's state: called again, finished chapters are skipped and a broken one
    goes on. `longer` multiplies every number of steps; `compiled` is whether torch.compile is used.
    """
    tokenizer = train_tokenizer()
    vocab = padded_vocab(tokenizer)
    learnt: dict[str, dict[str, Tensor]] = {}
    for chapter in RECIPE:
        size = replace(MODEL_SIZES["draft"], layers=chapter.layers)
        stage = replace(chapter.stage, steps=round(chapter.stage.steps * longer))
        weights = grow(learnt[chapter.after], size, vocab, stage.seed) if chapter.after else None
        log(f"{chapter.name}: {stage.steps} steps, {chapter.layers} layers, {device}")
        learnt[chapter.name] = train(
            size,
            tokenizer,
            stage,
            run / chapter.name,
            weights,
            device,
            compiled=compiled,
            log=log,
        )
    for name in MODEL_SIZES:
        export(learnt[name], name, out, tokenizer)


def export(
    learner: dict[str, Tensor], name: str, out: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write a learner's model as the checkpoint `out`/`name`, without the tower's classifier."""
    weights = {
        key.removeprefix("net."): value for key, value in learner.items() if key.startswith("net.")
    }
    save_checkpoint(out / name, weights, MODEL_SIZES[name], tokenizer)


def continue_pair(
    source: Path,
    out: Path,
    run: Path,
    steps: int,
    device: str = "cpu",
    names: tuple[str, ...] = tuple(MODEL_SIZES),
    compiled: bool = True,
    log: Callable[[str], None] = print,
) -> None:
    """Train checkpoints further for `steps` steps each, with the rate falling to zero."""
    from transformers import AutoTokenizer

    for seed, name in enumerate(names, 100):
        tokenizer = AutoTokenizer.from_pretrained(source / name)
        fresh = Learner(MODEL_SIZES[name], padded_vocab(tokenizer)).state_dict()
        saved = load_weights(source / name)
        fresh |= {f"net.{key}": value for key, value in saved.items()}
        stage = replace(GROWN, steps=steps, habits=(name,), warmup=20, decay=1.0, seed=seed)
        log(f"{name}: {steps} more steps, {device}")
        learner = train(
            MODEL_SIZES[name],
            tokenizer,
            stage,
            run / f"{name}-more",
            fresh,
            device,
            compiled=compiled,
            log=log,
        )
        export(learner, name, out, tokenizer)
