"""Language and parser are inverse: every fact comes back, whatever the habit."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from lvspec_sglang.miniworld.captions import caption
from lvspec_sglang.miniworld.habits import DRAFT, HABITS, TARGET, Habit
from lvspec_sglang.miniworld.lexicon import fact_of
from lvspec_sglang.miniworld.parse import is_complete, parse_answer, parse_caption
from lvspec_sglang.miniworld.questions import questions
from lvspec_sglang.miniworld.scene import facts, make_scene

SEEDS = st.integers(0, 2**40)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.sampled_from(sorted(HABITS)), st.floats(0, 1))
def test_a_caption_parses_to_the_facts(seed: int, name: str, stray: float) -> None:
    scene = make_scene(seed)
    habit = Habit(name, stray, random.Random(seed))
    found = parse_caption(caption(scene, habit))
    assert found == facts(scene)
    assert is_complete(found)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.sampled_from(sorted(HABITS)), st.floats(0, 1))
def test_an_answer_parses_to_its_value(seed: int, name: str, stray: float) -> None:
    for item in questions(make_scene(seed), Habit(name, stray, random.Random(seed))):
        assert parse_answer(item.kind, item.answer) == item.value, item


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_the_habits_differ_in_filler_only(seed: int) -> None:
    scene = make_scene(seed)
    texts = [caption(scene, habit) for habit in (TARGET, DRAFT)]
    stated = [[fact for word in text.split() if (fact := fact_of(word))] for text in texts]
    assert stated[0] == stated[1]


def test_the_habits_differ() -> None:
    texts = [[caption(make_scene(seed), habit) for seed in range(20)] for habit in (TARGET, DRAFT)]
    assert not set(texts[0]) & set(texts[1])


def test_a_habit_writes_the_same_text_every_time() -> None:
    scene = make_scene(1)
    assert caption(scene, TARGET) == caption(scene, replace(TARGET))


def test_captions_have_the_promised_length() -> None:
    lengths = [len(caption(make_scene(seed), TARGET).split()) for seed in range(400)]
    assert sum(50 <= length <= 120 for length in lengths) > 0.9 * len(lengths)


def test_an_incomplete_caption_is_seen_as_one() -> None:
    text = caption(make_scene(1), TARGET)
    assert not is_complete(parse_caption(text[: len(text) // 2]))
    assert not is_complete(parse_caption(""))


def test_an_answer_that_contradicts_itself_is_wrong() -> None:
    assert parse_answer("exists", "Yes, there is no red object here.") == "contradiction"
    assert parse_answer("exists", "No, there is one, the red circle.") == "contradiction"
    assert parse_answer("exists", "Not quite, I see one and it is the red circle.") == "circle"
    assert parse_answer("exists", "Right, there is no red object here.") == "none"
    assert parse_answer("exists", "Perhaps.") is None


def test_questions_ask_for_order_negation_and_counts() -> None:
    asked = {item.kind for seed in range(30) for item in questions(make_scene(seed), TARGET)}
    assert {"order", "exists", "count", "moving", "turned", "mover", "event", "end"} <= asked
