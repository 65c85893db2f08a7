"""What relaxes each request: its policy, its running threshold, the evidence of a round."""

from collections.abc import Sequence

import torch

from lvspec_sglang.config import QUERIES, RelaxConfig
from lvspec_sglang.relevance.base import Scorer
from lvspec_sglang.upload import upload
from lvspec_sglang.verify import compare_on
from lvspec_sglang.verify.quantile import Recent, ScoreRing
from lvspec_sglang.verify.rule import Evidence, Policy

MAX_STOP_TOKENS = 16
NO_TOKEN = -1
FLY_TOP = 3


class Relaxation:
    """Per-request policy and scores on the device, a row a request.

    Attributes:
        scorer: scores the queries of a verify forward.
        visual: ``[rows, width]`` bool, which positions of a row hold visual tokens.
    """

    def __init__(
        self,
        query: str,
        scorer: Scorer,
        rows: int,
        width: int,
        guarded: torch.Tensor,
        reference: Sequence[float] = (),
    ) -> None:
        """Prepare for ``rows`` requests of at most ``width`` tokens.

        Args:
            query: which query of the forward scores a drafted token, see ``LVSpecConfig``.
            scorer: scores the queries.
            guarded: token ids never relaxed, ``[vocab]`` bool, on the device.
            reference: scores to compare a request's with, at most 64; empty for its own.
        """
        device = guarded.device
        self.rows = rows
        self.first = QUERIES.index(query)
        self.scorer = scorer
        self.guarded = guarded
        self.compare = compare_on(device.type)
        self.visual = torch.zeros(rows, width, dtype=torch.bool, device=device)
        self.ring = ScoreRing(rows, device=device)
        self.reference = torch.tensor(reference, dtype=torch.float32, device=device)
        self.stops = torch.full((rows, MAX_STOP_TOKENS), NO_TOKEN, device=device)

        self.policies = torch.zeros(rows, len(Policy._fields), device=device)

    def begin(
        self,
        row: int,
        limit: int,
        relax: RelaxConfig,
        spans: Sequence[tuple[int, int]],
        stop_tokens: Sequence[int],
    ) -> None:
        """Start a request in ``row``.

        Args:
            limit: the most drafted tokens a round may accept.
            spans: prompt positions ``[start, stop)`` of visual tokens.
            stop_tokens: token ids that end this request.
        """
        assert len(stop_tokens) <= MAX_STOP_TOKENS, f"{len(stop_tokens)} stop tokens"
        self.ring.reset(row, self.reference)
        self.visual[row] = False
        for start, stop in spans:
            self.visual[row, start:stop] = True
        self.stops[row] = NO_TOKEN
        given = torch.tensor(stop_tokens, dtype=torch.int64)
        self.stops[row, : len(stop_tokens)] = upload(given, self.stops.device)
        self.policies[row] = upload(policy_row(limit, relax), self.policies.device)

    def policy(self, rows: torch.Tensor) -> Policy:
        """The policies of ``rows``, ``[batch]``."""
        return Policy.of(self.policies[rows])

    def evidence(
        self,
        rows: torch.Tensor,
        width: int,
        drafted: torch.Tensor,
        target: torch.Tensor,
        logits: torch.Tensor,
        reach: int,
        entropy: bool,
    ) -> Evidence:
        """What the last verify forward says of the drafted tokens.

        Args:
            rows: ``[batch]``.
            width: tokens of each request that it held.
            drafted: ``[batch, K]`` int64.
            target: ``[batch, K + 1]`` int64.
            logits: the target's, ``[batch * (K + 1), vocab]``.
            reach: host-side upper bound of the requests' lengths.
            entropy: whether anybody asks for the entropy, which costs a pass over the logits.
        """
        batch, steps = drafted.shape
        relevance = self.scorer.scores(rows, width, reach)[:, self.first : self.first + steps]
        relevance, log_ratio, guarded = self.compare(
            drafted, target, logits, relevance, rows, self.stops, self.guarded
        )
        uncertainty = torch.zeros_like(relevance)
        if entropy:
            logits = logits.view(batch, steps + 1, -1)[:, :steps]
            log_p = logits.topk(FLY_TOP).values.float() - logits.float().logsumexp(-1, keepdim=True)
            uncertainty = torch.special.entr(log_p.exp()).sum(dim=-1)
        recent = Recent(self.ring, rows)
        return Evidence(relevance, log_ratio, uncertainty, guarded, recent)

    def settle(self, evidence: Evidence, accept_lens: torch.Tensor) -> None:
        """Remember the scores of the positions a round decided, ``accept_lens`` ``[batch]``."""
        if len(self.reference):
            return
        steps = evidence.relevance.shape[1]
        ring, rows = evidence.recent
        ring.push(rows, evidence.relevance, accept_lens.long().clamp(max=steps))


def policy_row(limit: int, relax: RelaxConfig) -> torch.Tensor:
    """A row of ``Policy``'s table, ``[9]`` float32, on the host."""
    policy = {
        "limit": limit,
        "ratio": relax.loose_ratio,
        "log_floor": log_share(relax.floor),
        "log_visual_floor": log_share(relax.threshold_floor),
        "draft_shift": relax.draft_shift,
        "target_shift": relax.target_shift,
        "fly": relax.rule == "fly",
        "fly_entropy_threshold": relax.fly_entropy_threshold,
        "fly_window_size": relax.fly_window_size,
    }
    return torch.tensor([float(policy[name]) for name in Policy._fields])


def log_share(share: float) -> float:
    """The logarithm of ``share`` as the rule has it, in float32; -inf of 0."""
    return float(torch.tensor(share, dtype=torch.float32).log())
