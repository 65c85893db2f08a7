"""Scenes: the same seed gives the same world, and the facts follow from what happens in it."""

import pytest

from lvspec_sglang.miniworld.scene import (
    EVENT_NOUNS,
    FPS,
    SAMPLED,
    SECONDS,
    SHAPES,
    facts,
    make_scene,
)


def test_a_seed_gives_the_same_scene() -> None:
    assert make_scene(7) == make_scene(7)
    assert make_scene(7) != make_scene(8)


def test_sampled_frames_are_what_a_server_samples() -> None:
    numpy = pytest.importorskip("numpy")
    expected = numpy.linspace(0, SECONDS * FPS - 1, num=int(SECONDS * 2), dtype=numpy.int64)
    assert tuple(expected) == SAMPLED


@pytest.mark.parametrize("seed", range(60))
def test_names_are_unambiguous_and_lanes_do_not_collide(seed: int) -> None:
    scene = make_scene(seed)
    assert 2 <= len(scene.things) <= 4
    assert len({thing.color for thing in scene.things}) == len(scene.things)
    shapes = [SHAPES.index(thing.shape) for thing in scene.things]
    assert shapes == sorted(set(shapes))
    assert not {thing.new_color for thing in scene.things} & {t.color for t in scene.things}
    for a in scene.things:
        for b in scene.things:
            if a is not b and a.lane == b.lane:
                assert abs(a.along(0) - b.along(0)) > 0.3
                assert len(a.path) == len(b.path) == 1


@pytest.mark.parametrize("seed", range(60))
def test_events_happen_between_the_two_frames_of_a_group(seed: int) -> None:
    scene = make_scene(seed)
    times = []
    for act in scene.events:
        thing = next(thing for thing in scene.things if thing.act == act)
        time = {
            "appear": thing.born,
            "leave": thing.gone,
            "turn": thing.turn_at,
            "bounce": thing.path[1][0] if act == "bounce" else 0.0,
        }.get(act)
        if time is None:
            continue
        times.append(time)
        pairs = [(SAMPLED[i] / FPS, SAMPLED[i + 1] / FPS) for i in range(0, len(SAMPLED), 2)]
        assert any(first < time < second for first, second in pairs), (act, time)
    assert times == sorted(times)


@pytest.mark.parametrize("seed", range(60))
def test_overtaking_changes_who_is_ahead(seed: int) -> None:
    scene = make_scene(seed)
    for thing in scene.things:
        if thing.act != "overtake":
            continue
        other = next(item for item in scene.things if item.shape == thing.other)
        start = thing.along(0) - other.along(0)
        end = thing.along(SECONDS) - other.along(SECONDS)
        assert start * end < 0


def test_facts_name_every_thing_and_event() -> None:
    scene = make_scene(3)
    stated = facts(scene)
    for thing in scene.things:
        assert stated[f"{thing.shape}.color"] == thing.color
        assert stated[f"{thing.shape}.act"] == thing.act
    nouns = [stated[f"event.{rank}"] for rank in range(1, 1 + len(scene.events))]
    assert nouns == [EVENT_NOUNS[act] for act in scene.events]
