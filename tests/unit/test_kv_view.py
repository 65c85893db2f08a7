import torch

from lvspec_sglang.draft.kv_view import DraftKVView

ROWS, WIDTH, SLOTS = 4, 12, 64


def make_view() -> DraftKVView:
    target = torch.arange(ROWS * WIDTH, dtype=torch.int32).view(ROWS, WIDTH) + 1
    return DraftKVView(target, torch.zeros_like(target), SLOTS)


def test_a_row_lists_kept_positions_then_everything_after_the_prompt() -> None:
    view = make_view()
    view.begin(row=1, kept=torch.tensor([0, 3, 4]), prompt_len=6, rope_delta=-2)
    rows = torch.tensor([1])
    view.gather(rows, WIDTH)
    assert view.draft_table[1, :8].tolist() == [13 + p for p in (0, 3, 4, 6, 7, 8, 9, 10)]
    assert view.lengths(rows, torch.tensor([9])).tolist() == [6]
    assert view.slots(rows, torch.tensor([[6, 7]])).tolist() == [[19, 20]]


def test_the_row_follows_slots_the_radix_cache_swapped() -> None:
    view = make_view()
    view.begin(row=0, kept=torch.arange(4), prompt_len=4, rope_delta=0)
    view.gather(torch.tensor([0]), 4)
    view.target_table[0, 1] = 50
    view.gather(torch.tensor([0]), 4)
    assert view.draft_table[0, :4].tolist() == [1, 50, 3, 4]


def test_first_stale_is_where_the_draft_must_prefill_from() -> None:
    view = make_view()
    view.begin(row=0, kept=torch.arange(4), prompt_len=4, rope_delta=0)
    view.gather(torch.tensor([0]), 4)
    assert view.first_stale(0, 4) == 0
    view.mark_written(view.draft_table[0, :4].long())
    assert view.first_stale(0, 4) == 4
    view.invalidate(torch.tensor([3]))
    assert view.first_stale(0, 4) == 2


def test_a_slot_given_to_a_new_owner_is_stale_whatever_it_held() -> None:
    view = make_view()
    view.mark_written(torch.tensor([5, 6]))
    view.invalidate(torch.tensor([[5]]))
    assert view.valid.nonzero().flatten().tolist() == [6]


def test_only_a_wholly_accepted_chain_lags() -> None:
    view = make_view()
    rows, drafted = torch.tensor([2, 3]), torch.tensor([[10, 11], [20, 21]])
    view.settle(rows, drafted, torch.tensor([3, 2], dtype=torch.int32))
    assert view.lagging.tolist() == [False, False, True, False]
    assert view.last_token[2] == 11


def test_reusing_a_row_forgets_its_last_owner() -> None:
    view = make_view()
    view.begin(row=2, kept=torch.tensor([0, 5]), prompt_len=6, rope_delta=9)
    view.settle(torch.tensor([2]), torch.tensor([[1, 2]]), torch.tensor([3]))
    view.begin(row=2, kept=torch.arange(3), prompt_len=3, rope_delta=0)
    assert not view.lagging[2]
    assert view.kept[2].tolist() == list(range(WIDTH))
    assert (int(view.dropped[2]), int(view.rope_delta[2])) == (0, 0)
