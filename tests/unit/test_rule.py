import torch
from hypothesis import given
from hypothesis import strategies as st

from lvspec_sglang.verify.rule import accept_strict

STEPS = 5


def test_by_example() -> None:
    drafted = torch.tensor([[7, 8, 9], [7, 8, 9], [7, 8, 9], [7, 8, 9]])
    target = torch.tensor([[7, 8, 9, 4], [7, 5, 9, 4], [3, 8, 9, 4], [7, 8, 9, 4]])
    limit = torch.tensor([3, 3, 3, 0])
    verdict = accept_strict(drafted, target, limit)
    assert verdict.accept_lens.tolist() == [4, 2, 1, 1]
    assert verdict.accept_lens.dtype == torch.int32
    committed = [
        row[:n] for row, n in zip(verdict.tokens.tolist(), verdict.accept_lens, strict=True)
    ]
    assert committed == [[7, 8, 9, 4], [7, 5], [3], [7]]


tokens = st.integers(0, 2)


@given(
    st.lists(
        st.tuples(
            st.lists(tokens, min_size=STEPS, max_size=STEPS),
            st.lists(tokens, min_size=STEPS + 1, max_size=STEPS + 1),
            st.integers(0, STEPS),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_equals_the_loop_it_stands_for(rows: list[tuple[list[int], list[int], int]]) -> None:
    drafted, target, limit = (torch.tensor(list(column)) for column in zip(*rows, strict=True))
    verdict = accept_strict(drafted, target, limit)
    for (draft, wanted, most), accepted, out in zip(
        rows, verdict.accept_lens.tolist(), verdict.tokens.tolist(), strict=True
    ):
        committed = []
        for i in range(STEPS + 1):
            committed.append(wanted[i])
            if i >= most or draft[i] != wanted[i]:
                break
        assert out[:accepted] == committed
