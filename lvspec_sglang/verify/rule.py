"""The accept rule on batched tensors: the torch reference.

For i = 1..K the drafted token x_i is accepted if it is the target's token y_i, or position i is
loose, or x_i is the right word at a slightly wrong place; the first x_i that is none of these is
replaced by y_i and ends the round. (LVSpec, arXiv 2604.05650; the guards, the plausibility floor
and the running quantile are ours.)
"""

from enum import IntEnum
from typing import NamedTuple

import torch

from lvspec_sglang.verify.quantile import Recent

MAX_STEPS = 32  # drafted tokens that a round may decide
DEFAULT_STEPS = 10  # of a server that names no number


class Kind(IntEnum):
    """Why a token was committed."""

    MATCH = 0  # drafted, and the target's own choice
    LOOSE = 1  # drafted, at a position of low visual relevance
    SHIFT = 2  # drafted, the target's word at a neighbouring place
    TARGET = 3  # the target's token after a rejected one
    BONUS = 4  # the target's token after a wholly accepted chain


class Policy(NamedTuple):
    """How much a request relaxes: the columns of a table of a row a request, ``[batch]`` float32.

    Attributes:
        limit: the most drafted tokens to accept; 0 decodes plainly.
        ratio: share of the request's recent scores whose largest is the threshold up to which a
            position is loose; 0: none is.
        log_floor: a relaxed token needs ``log p(x_i) - log p(y_i)`` of so much; -inf: no floor.
        log_visual_floor: at least ``log_floor``; what a loose token needs instead at the
            threshold. Between the lowest recent score and the threshold what is needed grows
            linearly. Without a floor there is no visual one.
        draft_shift: x_i may be the target's token up to so many places away.
        target_shift: y_i may be drafted up to so many places away.
        fly: 1 for FLy's rule instead of the loose one, else 0.
        fly_entropy_threshold: nats; the least entropy FLy relaxes at.
        fly_window_size: drafted tokens after it that must match for FLy.
    """

    limit: torch.Tensor
    ratio: torch.Tensor
    log_floor: torch.Tensor
    log_visual_floor: torch.Tensor
    draft_shift: torch.Tensor
    target_shift: torch.Tensor
    fly: torch.Tensor
    fly_entropy_threshold: torch.Tensor
    fly_window_size: torch.Tensor

    @classmethod
    def of(cls, table: torch.Tensor) -> "Policy":
        """The columns of ``table``, ``[batch, 9]``."""
        return cls(*table.unbind(dim=1))


class Evidence(NamedTuple):
    """What the verify forward says of each drafted token, ``[batch, K]`` each but the last.

    Attributes:
        relevance: float32, visual relevance of the position.
        log_ratio: float32, ``log p(x_i) - log p(y_i)`` under the target.
        entropy: float32, nats; what the target's three likeliest tokens add to the entropy of its
            choice, as FLy's authors compute it.
        guarded: bool, x_i or y_i must never be relaxed.
        recent: the relevance of positions decided before.
    """

    relevance: torch.Tensor
    log_ratio: torch.Tensor
    entropy: torch.Tensor
    guarded: torch.Tensor
    recent: Recent


class Verdict(NamedTuple):
    """What a round commits.

    Attributes:
        accept_lens: ``[batch]`` int32; committed tokens of each request: the accepted drafted
            ones and the target's own token after them.
        tokens: ``[batch, K + 1]`` int64; the committed tokens first, then don't-care values.
        kinds: ``[batch, K + 1]`` int8, a ``Kind`` each.
        threshold: ``[batch]`` float32, the relevance up to which positions were loose; -inf: none.
    """

    accept_lens: torch.Tensor
    tokens: torch.Tensor
    kinds: torch.Tensor
    threshold: torch.Tensor


def accept(
    drafted: torch.Tensor, target: torch.Tensor, policy: Policy, evidence: Evidence | None
) -> Verdict:
    """Decide a round.

    With ``target`` sampled from the target's distribution and no relaxation, that distribution is
    kept exactly (SGLang's rule for chains without draft probabilities).

    Args:
        drafted: ``[batch, K]`` int64, the draft's chain.
        target: ``[batch, K + 1]`` int64, the target's token after the last committed token and
            after each drafted one.
        policy: how much each request relaxes.
        evidence: what the forward says; None where nobody relaxes.
    """
    steps = drafted.shape[1]
    offsets = torch.arange(steps + 1, device=drafted.device)
    match = drafted == target[:, :steps]
    loose = shift = torch.zeros_like(match)
    threshold = torch.full_like(policy.ratio, -torch.inf)
    if evidence is not None:
        ring, rows = evidence.recent
        lowest, threshold = ring.lowest(rows), ring.threshold(rows, policy.ratio)
        allowed = ~match & ~evidence.guarded & (evidence.log_ratio >= policy.log_floor[:, None])
        wordy = (evidence.relevance <= threshold[:, None]) & likely_enough(
            evidence, lowest, threshold, policy
        )
        lenient = torch.where(
            policy.fly[:, None] > 0, fly_lenient(match, evidence.entropy, policy), wordy
        )
        loose = allowed & lenient
        shift = allowed & ~loose & shifted(drafted, target[:, :steps], policy)
    passed = (match | loose | shift) & (offsets[:steps] < policy.limit[:, None])
    accepted = passed.int().cumprod(dim=1).sum(dim=1)

    is_draft = offsets < accepted[:, None]
    padded = torch.cat([drafted, target[:, -1:]], dim=1)
    kinds = torch.full_like(target, Kind.TARGET, dtype=torch.int8)
    kinds[:, -1] = Kind.BONUS
    drafted_kinds = loose.to(torch.int8) * Kind.LOOSE + shift.to(torch.int8) * Kind.SHIFT
    kinds[:, :steps] = torch.where(is_draft[:, :steps], drafted_kinds, kinds[:, :steps])
    return Verdict((accepted + 1).int(), torch.where(is_draft, padded, target), kinds, threshold)


def plain(target: torch.Tensor) -> Verdict:
    """The verdict of a round without a draft: the first of ``target``, ``[batch, n]``."""
    kinds = torch.full_like(target, Kind.TARGET, dtype=torch.int8)
    first = target[:, 0]
    lens = torch.ones_like(first, dtype=torch.int32)
    return Verdict(lens, target, kinds, torch.full_like(first, -torch.inf, dtype=torch.float32))


def likely_enough(
    evidence: Evidence, lowest: torch.Tensor, threshold: torch.Tensor, policy: Policy
) -> torch.Tensor:
    """Whether x_i is as likely as so visual a position wants it, ``[batch, K]`` bool.

    ``log p(x_i) - log p(y_i)`` has to reach the line from ``log_floor`` at the lowest recent score
    to ``log_visual_floor`` at the threshold, which holds alone where both are the same score.
    (Ours. Products are compared, not quotients, so that every device rounds alike.)

    Args:
        lowest, threshold: ``[batch]`` float32, of the recent scores.
    """
    floor, visual_floor = policy.log_floor[:, None], policy.log_visual_floor[:, None]
    span = (threshold - lowest)[:, None]
    depth = (threshold[:, None] - evidence.relevance).clamp(min=0).minimum(span)
    sloped = (evidence.log_ratio - visual_floor) * span >= depth * (floor - visual_floor)
    reached = torch.where(span > 0, sloped, evidence.log_ratio >= visual_floor)
    return reached | (floor == -torch.inf)


def shifted(drafted: torch.Tensor, target: torch.Tensor, policy: Policy) -> torch.Tensor:
    """Whether x_i or y_i stands on the other side within its window, ``[batch, K]`` bool.

    Args:
        drafted, target: x and y at the same positions, ``[batch, K]`` int64.
    """
    places = torch.arange(drafted.shape[1], device=drafted.device)
    distance = (places[:, None] - places[None, :]).abs()
    near = distance[None]
    same = drafted[:, :, None] == target[:, None, :]
    x_among_targets = (same & (near <= policy.draft_shift[:, None, None])).any(dim=2)
    y_among_drafts = (same & (near <= policy.target_shift[:, None, None])).any(dim=1)
    return x_among_targets | y_among_drafts


def fly_lenient(match: torch.Tensor, entropy: torch.Tensor, policy: Policy) -> torch.Tensor:
    """FLy (arXiv 2511.22972): an uncertain target, and the next drafted tokens all match.

    Args:
        match: ``[batch, K]`` bool.
        entropy: ``[batch, K]``, nats.
    """
    steps = match.shape[1]
    window = policy.fly_window_size[:, None].long()
    after = torch.arange(1, steps + 1, device=match.device)
    matched = torch.nn.functional.pad(match.long().cumsum(dim=1), (1, 0))
    end = after + window
    within = matched.gather(1, end.clamp(max=steps)) - matched[:, 1:]
    agrees = (end <= steps) & (within == window)
    return agrees & (entropy >= policy.fly_entropy_threshold[:, None])
