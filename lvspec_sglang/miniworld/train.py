"""The trainer: a deterministic loop that can stop and resume, and growth from shallow to deep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvspec_sglang.miniworld import cells, tracks
from lvspec_sglang.miniworld.data import Batch, Sampler, patchify
from lvspec_sglang.miniworld.model import Size, padded_vocab
from lvspec_sglang.miniworld.net import MiniVL, segment_bias

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Stage:
    """One stretch of training: what is learnt, for how long, and how fast.

    The learning rate rises over `warmup` steps, stays, and falls to zero over the last `decay`
    share of the steps. `cells` weighs the tower's own task, the only one where `words` is 0, and
    `tracks` the language model's; `facts` is what a token that states a fact counts for, and
    `busy` whether two clips in three are busy ones.
    """

    steps: int
    batch: int = 16
    rate: float = 3e-3
    warmup: int = 60
    decay: float = 0.0
    words: float = 1.0
    cells: float = 0.2
    tracks: float = 0.0
    facts: float = 2.0
    busy: bool = True
    stray: float = 0.06
    habits: tuple[str, ...] = ("target", "draft")
    seed: int = 1

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, a share of `rate`."""
        falling = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup), max(falling, 0.0))


class Losses(NamedTuple):
    """Losses of the tower's task, the language model's task and the words; facts' share right."""

    cells: Tensor
    tracks: Tensor = torch.zeros(())
    words: Tensor = torch.zeros(())
    facts_right: Tensor = torch.zeros(())


def classify(logits: Tensor, labels: Tensor, classes: dict[str, int]) -> Tensor:
    """Mean cross-entropy of several classifications that share one output [B, N, classes]."""
    heads = logits.float().split(list(classes.values()), -1)
    return torch.stack(
        [
            F.cross_entropy(head.flatten(0, 1), labels[..., kind].flatten().long())
            for kind, head in enumerate(heads)
        ]
    ).mean()


class Learner(nn.Module):
    """The model with classifiers on its video tokens, which are thrown away after training."""

    def __init__(self, size: Size, vocab: int) -> None:
        super().__init__()
        self.net = MiniVL(size, vocab)
        self.cells = nn.Linear(size.hidden, sum(cells.CLASSES.values()))
        self.tracks = nn.Linear(size.hidden, sum(tracks.CLASSES.values()))

    def losses(self, batch: Batch, prefix: int, words: bool = True) -> Losses:
        """All losses of a batch; with `words` False those of the tower alone."""
        video = self.net.visual(patchify(batch.pixels))
        shown = classify(self.cells(video), batch.cells, cells.CLASSES)
        if not words:
            return Losses(shown)
        bias = segment_bias(batch.segments, prefix)
        halfway: list[Tensor] = []
        logits = self.net(video, batch.ids, batch.positions, bias, prefix, halfway).float()
        loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
        weights = batch.weights.flatten()
        return Losses(
            shown,
            classify(self.tracks(halfway[0]), batch.tracks, tracks.CLASSES),
            (loss * weights).sum() / weights.sum(),
            (logits.argmax(-1) == batch.labels)[batch.weights > 1].float().mean(),
        )


def make_optimizers(learner: Learner, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    inner = [
        weight
        for name, weight in learner.named_parameters()
        if weight.dim() == 2 and (".layers." in name or ".blocks." in name or ".merger." in name)
    ]
    known = {id(weight) for weight in inner}
    rest = [weight for weight in learner.parameters() if id(weight) not in known]
    return [
        torch.optim.Muon(
            inner, lr=rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=rate / 2, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def grow(weights: dict[str, Tensor], size: Size, vocab: int, seed: int) -> dict[str, Tensor]:
    """Weights of a deeper model that computes what the shallow one does.

    The old layers keep their order, spread over the depth; a new layer starts with zero output
    projections, so that it passes its input on unchanged until training gives it something to do.
    """
    torch.manual_seed(seed)
    fresh = Learner(size, vocab).state_dict()
    head = "net.language_model.layers."
    old = 1 + max(int(name[len(head) :].split(".")[0]) for name in weights if name.startswith(head))
    if old > size.layers:
        raise ValueError(f"cannot grow {old} layers to {size.layers}: give a size at least as deep")
    home = {round((i + 0.5) * size.layers / old - 0.5): i for i in range(old)}
    for name in fresh:
        if not name.startswith(head):
            fresh[name] = weights.get(name, fresh[name])
            continue
        layer, rest = name[len(head) :].split(".", 1)
        if int(layer) in home:
            fresh[name] = weights[f"{head}{home[int(layer)]}.{rest}"]
        elif rest in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
            fresh[name] = torch.zeros_like(fresh[name])
    return fresh


def train(
    size: Size,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    run: Path,
    weights: dict[str, Tensor] | None = None,
    device: str = "cpu",
    save_every: int = 200,
    workers: int = 1,
    compiled: bool = True,
    log: Callable[[str], None] = print,
) -> dict[str, Tensor]:
    """Train one stage and return the learner's weights.

    State goes to `run` every `save_every` steps and at the end; called again with the same stage it
    goes on from there, and ends with the very weights an unbroken run on the same machine gives.
    """
    torch.manual_seed(stage.seed)
    learner = Learner(size, padded_vocab(tokenizer)).to(device)
    if weights is not None:
        learner.load_state_dict(weights)
    optimizers = make_optimizers(learner, stage.rate)
    done = _load(run, stage, learner, optimizers, device)
    if compiled:
        _compile(learner)
    sampler = Sampler(
        tokenizer,
        stage.habits,
        stage.batch,
        stage.seed,
        stray=stage.stray,
        fact_weight=stage.facts,
        busy=stage.busy,
    )
    clock = time.monotonic()
    for step, batch in _batches(sampler, done, stage.steps, workers):
        share = stage.rate_at(step)
        for optimizer, rate in zip(optimizers, (stage.rate, stage.rate / 2), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss = learner.losses(batch.to(device), sampler.prompter.prefix, stage.words > 0)
        total = stage.words * loss.words + stage.cells * loss.cells + stage.tracks * loss.tracks
        total.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 20 == 0 or step + 1 == stage.steps:
            rate_now = 20 * stage.batch / (time.monotonic() - clock)
            clock = time.monotonic()
            log(
                f"step {step + 1}/{stage.steps}  words {loss.words.item():.4f}"
                f"  facts {loss.facts_right.item():.3f}  cells {loss.cells.item():.4f}"
                f"  tracks {loss.tracks.item():.4f}  {rate_now:.1f} clips/s"
            )
        if (step + 1) % save_every == 0 or step + 1 == stage.steps:
            _save(run, stage, step + 1, learner, optimizers)
    return learner.state_dict()


def _batches(sampler: Sampler, first: int, last: int, workers: int) -> Any:
    """(step, batch) pairs, made ahead in other processes where `workers` is not 0."""
    if not workers:
        return ((step, sampler[step]) for step in range(first, last))
    loader: Any = torch.utils.data.DataLoader(
        sampler,  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=4,
    )
    return zip(range(first, last), loader, strict=True)


def _compile(learner: Learner) -> None:
    for block in (*learner.net.visual.blocks, *learner.net.language_model.layers):
        block.compile(dynamic=False)


def _save(
    run: Path, stage: Stage, step: int, learner: Learner, optimizers: list[torch.optim.Optimizer]
) -> None:
    run.mkdir(parents=True, exist_ok=True)
    state = {
        "stage": asdict(stage),
        "step": step,
        "learner": learner.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    torch.save(state, run / "state.tmp")
    os.replace(run / "state.tmp", run / "state.pt")


def _load(
    run: Path,
    stage: Stage,
    learner: Learner,
    optimizers: list[torch.optim.Optimizer],
    device: str,
) -> int:
    """Restore a run's state and return its steps done, 0 where there is none."""
    if not (run / "state.pt").exists():
        return 0
    state = torch.load(run / "state.pt", map_location=device)
    if replace(Stage(**state["stage"]), steps=stage.steps) != stage:
        raise ValueError(
            f"{run} holds another stage, {state['stage']}: give the same settings, or another run"
        )
    learner.load_state_dict(state["learner"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
