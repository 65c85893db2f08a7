"""Recorded runs made with the accept rule itself, on random tokens and scores."""

import dataclasses
import math
from typing import Any

import torch

from lvspec_sglang.config import RelaxConfig
from lvspec_sglang.metrics import TRACE_COLUMNS
from lvspec_sglang.relaxation import policy_row
from lvspec_sglang.verify.quantile import MIN_HELD, Recent, ScoreRing
from lvspec_sglang.verify.rule import Evidence, Kind, Policy, Verdict, accept

STEPS = 10
ROW = torch.tensor([0])


@dataclasses.dataclass
class Round:
    """A round's whole chain and evidence, of which a trace keeps the decided places."""

    drafted: torch.Tensor
    target: torch.Tensor
    evidence: Evidence


def policy_of(relax: RelaxConfig) -> Policy:
    """The policy of one request."""
    return Policy.of(policy_row(STEPS, relax)[None])


def decide(relax: RelaxConfig, each: Round) -> Verdict:
    """The verdict on a round."""
    return accept(each.drafted, each.target, policy_of(relax), each.evidence)


def fresh_ring(reference: list[float]) -> ScoreRing:
    """A request's ring as ``Relaxation`` begins it."""
    ring = ScoreRing(1)
    ring.reset(0, torch.tensor(reference))
    return ring


def settle(each: Round, decided: int, reference: list[float]) -> None:
    """Remember the scores of the places a round decided, unless they are compared with others."""
    if reference:
        return
    ring, rows = each.evidence.recent
    ring.push(rows, each.evidence.relevance, torch.tensor([min(decided, STEPS)]))


def simulate(
    relax: RelaxConfig, rounds: int, seed: int, reference: list[float] | None = None
) -> tuple[dict[str, Any], list[Round]]:
    """A recorded run of ``rounds`` rounds, and what the trace leaves out of them."""
    reference = reference or []
    random = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...], most: int) -> torch.Tensor:
        return torch.randint(most, shape, generator=random)

    ring = fresh_ring(reference)
    trace: dict[str, list[Any]] = {key: [] for key in TRACE_COLUMNS}

    def note(*values: Any) -> None:
        for key, value in zip(TRACE_COLUMNS, values, strict=True):
            trace[key].append(value)

    note(Kind.TARGET, -1, 5, None, None, None, None)
    ids, chains = [5], []
    for _ in range(rounds):
        target = draw((1, STEPS + 1), 40)
        drafted = torch.where(draw((1, STEPS), 100) < 70, target[:, :STEPS], draw((1, STEPS), 40))
        each = Round(
            drafted,
            target,
            Evidence(
                # Few values, so that equal scores meet the threshold.
                relevance=torch.rand((1, STEPS), generator=random).mul(50).round() / 64,
                log_ratio=-5 * torch.rand((1, STEPS), generator=random),
                entropy=torch.zeros(1, STEPS),
                guarded=draw((1, STEPS), 10) == 0,
                recent=Recent(ring, ROW),
            ),
        )
        chains.append(each)
        verdict = decide(relax, each)
        threshold = float(verdict.threshold)
        count = int(verdict.accept_lens)
        for i in range(count):
            kind = int(verdict.kinds[0, i])
            if i == STEPS:
                note(kind, -1, int(target[0, i]), None, None, None, None)
                continue
            evidence = [float(column[0, i]) for column in each.evidence[:4]]
            note(
                kind, int(drafted[0, i]), int(target[0, i]), evidence[0],
                None if math.isinf(threshold) else threshold, evidence[1], bool(evidence[3]),
            )  # fmt: skip
        ids += verdict.tokens[0, :count].tolist()
        settle(each, count, reference)
    strict = [token + (place % 9 == 3) for place, token in enumerate(ids[:-4])]

    def run(ids: list[int], accepted: int) -> dict[str, Any]:
        pieces = [word(token) for token in ids]
        return {"ids": ids, "pieces": pieces, "rounds": rounds, "accepted": accepted}

    record = {
        "video": "clip.mp4",
        "prompt": "What happens in </script> this video?",
        "target": "target",
        "draft": "draft",
        "steps": STEPS,
        "preset": None,
        "relax": dataclasses.asdict(relax),
        "log_floor": float(torch.tensor(relax.floor).log()) if relax.floor else None,
        "log_visual_floor": float(policy_of(relax).log_visual_floor) if relax.floor else None,
        "ring": {"size": ring.size, "least": MIN_HELD, "reference": reference},
        "trace": trace,
        "relaxed": run(ids, len(ids) - 1 - rounds),
        "strict": run(strict, len(strict) // 2),
        "texts": {token: word(token) for token in range(42)},
        "frames": [],
    }
    return record, chains


def word(token: int) -> str:
    return " " + "abcdefghijklmnopqrstuvwxyz"[token % 26] * (1 + token // 7)
