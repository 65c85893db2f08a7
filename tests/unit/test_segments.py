from hypothesis import given, settings
from hypothesis import strategies as st

from lvspec_sglang.draft.batches import Segment, split_segments

segments = st.lists(
    st.builds(
        lambda row, start, length: Segment(row, start, start + length),
        st.integers(0, 9),
        st.integers(0, 50),
        st.integers(0, 40),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(segments, st.integers(1, 30))
def test_groups_hold_every_token_once_in_order(given_: list[Segment], limit: int) -> None:
    groups = split_segments(given_, limit)
    assert all(0 < sum(s.stop - s.start for s in group) <= limit for group in groups)
    flat = [(s.row, i) for group in groups for s in group for i in range(s.start, s.stop)]
    assert flat == [(s.row, i) for s in given_ for i in range(s.start, s.stop)]
