"""What the draft must read after rounds it sat out."""

from types import SimpleNamespace

import torch

from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.draft.model import DraftModel, Prompt
from lvspec_sglang.sat_out import SatOut

PROMPT = torch.arange(100, 106)
KEPT = torch.tensor([0, 1, 4, 5])
ROW = 1


class Draft:
    """Prefills what it is asked for and remembers it, with the view of a real draft."""

    stale_segment = DraftModel.stale_segment

    def __init__(self) -> None:
        slots = torch.arange(40, dtype=torch.int32).view(2, 20)
        self.view = DraftKVView(slots, torch.zeros_like(slots), slots=40)
        self.view.begin(ROW, KEPT, len(PROMPT), rope_delta=0)
        self.sat_out = SatOut(self.view)
        self.followed = {ROW: SimpleNamespace(prompt=Prompt(PROMPT, KEPT, None, (), None, 0))}

    def catch_up(self, length: int) -> dict[int, int]:
        """What it reads at which position."""
        whole = self.sat_out.prompts([ROW], torch.tensor([length]), self.followed)
        if not whole:
            return {}
        _, start, stop = self.stale_segment(ROW, whole[ROW])
        positions = whole[ROW].kept[start:stop]
        self.view.mark_written(self.view.draft_table[ROW, start:stop].long())
        return dict(zip(positions.tolist(), whole[ROW].ids[positions].tolist(), strict=True))


def test_a_draft_that_missed_nothing_reads_nothing() -> None:
    assert Draft().catch_up(6) == {}


def test_it_reads_what_was_fed_to_the_target_meanwhile() -> None:
    """Two drafted tokens accepted, one corrected; then three plain rounds."""
    draft = Draft()
    rows = torch.tensor([ROW])
    draft.view.mark_written(draft.view.slots(rows, KEPT[None]))
    # A drafted round from position 6: the chain's first three tokens are committed.
    positions = torch.arange(6, 11)[None]
    draft.sat_out.remember(rows, positions, torch.tensor([[7, 8, 9, 1, 1]]))
    draft.view.mark_written(draft.view.slots(rows, positions[:, :-1]))
    for position, token in ((9, 50), (10, 51), (11, 52)):
        at = torch.tensor([[position]])
        draft.view.invalidate(draft.view.slots(rows, at))
        draft.sat_out.remember(rows, at, torch.tensor([[token]]))
        draft.sat_out.note([ROW])
    assert draft.catch_up(12) == {9: 50, 10: 51, 11: 52}
    asked = draft.sat_out.prompts([ROW], torch.tensor([12]), draft.followed)
    assert asked == {}, "it waits for the device once for many plain rounds"


def test_a_row_that_was_never_drafted_for_is_read_from_its_prompt_on() -> None:
    draft = Draft()
    draft.view.lagging[ROW] = True
    draft.sat_out.remember(torch.tensor([ROW]), torch.tensor([[6]]), torch.tensor([[50]]))
    draft.sat_out.note([ROW])
    assert draft.catch_up(7) == {0: 100, 1: 101, 4: 104, 5: 105, 6: 50}
    assert not draft.view.lagging[ROW]
