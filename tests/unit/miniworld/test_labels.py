"""Labels of the video tokens: they show what is there, and remember what has happened."""

import pytest

from lvspec_sglang.miniworld import cells, tracks
from lvspec_sglang.miniworld.net import VIDEO_TOKENS
from lvspec_sglang.miniworld.scene import BACKDROPS, COLORS, GROUPS, make_scene


@pytest.mark.parametrize("seed", range(20))
def test_cells_show_every_thing_and_no_other(seed: int) -> None:
    scene = make_scene(seed)
    labels = cells.cell_labels(scene)
    assert labels.shape == (VIDEO_TOKENS, len(cells.CLASSES))
    for kind, classes in enumerate(cells.CLASSES.values()):
        assert labels[:, kind].max() < classes
    shown = {COLORS[label - 1] for label in labels[:, :2].flatten() if label}
    expected = {thing.color for thing in scene.things} | {t.new_color for t in scene.things}
    assert shown == expected - {""}
    assert set(labels[:, -1]) == {BACKDROPS.index(scene.backdrop)}


@pytest.mark.parametrize("seed", range(20))
def test_tracks_end_with_the_events_in_order(seed: int) -> None:
    scene = make_scene(seed, busy=True)
    labels = tracks.track_labels(scene)
    assert labels.shape == (VIDEO_TOKENS, len(tracks.CLASSES))
    first = len(tracks.CLASSES) - tracks.MOST_EVENTS
    last = [tracks.EVENTS[label - 1] for label in labels[-1, first:] if label]
    assert tuple(last) == scene.events
    assert not labels[: VIDEO_TOKENS // GROUPS, first:].any()
