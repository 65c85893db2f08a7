"""What the ranks of a tensor-parallel group must have in common to stay in step."""

import torch
from sglang.srt.runtime_context import get_parallel

from lvspec_sglang.verify.rule import Evidence, Verdict


def mean_evidence(evidence: Evidence) -> Evidence:
    """Evidence by the attention heads of all ranks; each has scored by its own."""
    group = get_parallel().tp_group
    if group.world_size == 1:
        return evidence
    return evidence._replace(
        relevance=group.all_reduce(evidence.relevance.contiguous()) / group.world_size
    )


def first_verdict(verdict: Verdict, check: bool) -> Verdict:
    """What rank 0 commits, everywhere; why, it alone reports. ``check`` asserts that every rank
    had come to the same verdict."""
    group = get_parallel().tp_group
    if group.world_size > 1:
        for tensor in verdict if check else (verdict.accept_lens, verdict.tokens):
            own = tensor.clone() if check else None
            group.broadcast(tensor, src=0)
            assert own is None or torch.equal(own, tensor), f"ranks decided {own} and {tensor}"
    return verdict


def first_decision(decision: int) -> int:
    """Rank 0's decision, everywhere; it waits for the other ranks' hosts."""
    group = get_parallel().tp_group
    return int(group.broadcast_object(decision, src=0)) if group.world_size > 1 else decision


def is_first() -> bool:
    """Whether this is the rank that counts and reports for its group."""
    return bool(get_parallel().tp_rank == 0)
