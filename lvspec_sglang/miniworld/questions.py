"""Follow-up questions about a scene with their true answers, written with a habit."""

from __future__ import annotations

from dataclasses import dataclass

from lvspec_sglang.miniworld.habits import Habit
from lvspec_sglang.miniworld.scene import (
    COLORS,
    COUNTS,
    DIRECTIONS,
    EVENT_NOUNS,
    SECONDS,
    Scene,
    Thing,
)

MOVING = ("move", "bounce", "overtake")


@dataclass(frozen=True)
class Question:
    """A question with its answer; `value` is the one fact that the answer has to state."""

    text: str
    answer: str
    kind: str
    value: str


def questions(scene: Scene, habit: Habit) -> list[Question]:
    """Every question that this scene answers without ambiguity."""
    return [
        *_about_all(scene, habit),
        *_about_colors(scene, habit),
        *_about_order(scene, habit),
        *_about_motion(scene, habit),
        *(item for thing in scene.things for item in _about_thing(scene, thing, habit)),
    ]


def _about_all(scene: Scene, habit: Habit) -> list[Question]:
    say = habit.pick
    count = COUNTS[len(scene.things)]
    moving = COUNTS[sum(thing.act in MOVING for thing in scene.things)]
    there = say("q.count", ("There are", "I count", "We see", "I can see"))
    tail = say("q.count.tail", (" in the clip", " in total", " in view", ""), count)
    verb = say("q.moving", (" in motion", " that move", " on the move"), moving)
    paint = say("q.back", ("The background is", "It is", "The wall behind is", "The backdrop is"))
    return [
        Question("How many objects are there?", f"{there} {count} objects{tail}.", "count", count),
        Question("How many objects move?", f"I see {moving}{verb}.", "moving", moving),
        Question(
            "What color is the background?",
            f"{paint} {scene.backdrop}.",
            "backdrop",
            scene.backdrop,
        ),
    ]


def _about_colors(scene: Scene, habit: Habit) -> list[Question]:
    say = habit.pick
    shape_of = {thing.color: thing.shape for thing in scene.things}
    later = {thing.new_color for thing in scene.things}
    found = []
    for color in COLORS:
        if color in later:
            continue
        shape = shape_of.get(color, "none")
        where = say("q.where", (" here", " in the clip", " in view", " to be seen"), color)
        if shape == "none":
            yes = no = f"there is no {color} object{where}."
            plain, negated = f"No, {no}", f"Right, {yes}"
        else:
            one = say("q.exists", ("there is one", "I see one", "one is there"), color)
            link = say("q.exists.link", (", the", " and it is the", ", namely the"), color + one)
            plain, negated = (
                f"Yes, {one}{link} {color} {shape}.",
                f"Not quite, {one}{link} {color} {shape}.",
            )
        found += [
            Question(f"Is there a {color} object?", plain, "exists", shape),
            Question(f"Is there no {color} object?", negated, "exists", shape),
        ]
    turned = [thing for thing in scene.things if thing.act == "turn"]
    if turned:
        thing = turned[0]
        went = say("q.turn", ("did and went", "did, it went", "went"), thing.shape)
        answer = f"The {thing.shape} {went} from {thing.color} to {thing.new_color}."
        value = f"{thing.shape} {thing.color} {thing.new_color}"
    else:
        what = say("q.turn.none", ("None of them did", "None of the objects did", "None did"))
        answer, value = f"{what}.", "none"
    found.append(Question("Which object changed color?", answer, "turned", value))
    return found


def _about_order(scene: Scene, habit: Habit) -> list[Question]:
    say = habit.pick
    nouns = [EVENT_NOUNS[act] for act in scene.events]
    found = []
    for i, a in enumerate(nouns):
        for j, b in enumerate(nouns):
            if i == j:
                continue
            value = "before" if i < j else "after"
            verb = say("q.order", (" came", " happened", " took place", " was"), a + b)
            soon = say("q.order.soon", ("", " shortly", " clearly", " some time"), b + a)
            answer = f"The {a}{verb}{soon} {value} the {b}."
            text = f"Did the {a} come before or after the {b}?"
            found.append(Question(text, answer, "order", value))
    if len(nouns) > 1:
        for text, noun in (("first", nouns[0]), ("last", nouns[-1])):
            came = say("q.rank", ("It was the", "That was the", "The clip has the"), text)
            at = say("q.rank.tail", (f" that came {text}", f" {text}", ""), noun)
            found.append(Question(f"What happened {text}?", f"{came} {noun}{at}.", "event", noun))
    return found


def _about_motion(scene: Scene, habit: Habit) -> list[Question]:
    if any(thing.act == "bounce" for thing in scene.things):
        return []
    say = habit.pick
    found = []
    for heading in DIRECTIONS.values():
        movers = [thing for thing in scene.things if scene.direction(thing) == heading]
        if len(movers) > 1:
            continue
        if movers:
            it = say("q.mover", ("It was the", "That was the", "I think it was the"), heading)
            name = f"{movers[0].color} {movers[0].shape}"
            tail = say("q.mover.tail", (" that did", " that moved so", ""), name)
            answer, value = f"{it} {name}{tail}.", movers[0].shape
        else:
            who = say("q.mover.none", ("None of them", "None of the objects", "None"), heading)
            answer, value = f"{who} moved {heading}.", "none"
        found.append(Question(f"Which object moved {heading}?", answer, "mover", value))
    return found


def _about_thing(scene: Scene, thing: Thing, habit: Habit) -> list[Question]:
    say = habit.pick
    shape = thing.shape
    it = say("q.it", ("It", f"The {shape}"), shape)
    found = [
        Question(
            f"What color is the {shape} at first?",
            f"{it} {say('q.color', ('is', 'starts out', 'was', 'looks'), shape)} {thing.color}.",
            "color",
            thing.color,
        ),
        Question(
            f"How big is the {shape}?",
            f"{it} {say('q.size', ('is', 'is quite', 'looks', 'seems'), shape)} {thing.size}.",
            "size",
            thing.size,
        ),
    ]
    ends = say("q.end", (" ends up", " finishes", " is", " stops"), shape)
    at = say("q.end.at", (" at", " near", " in"), ends + shape)
    value = " ".join(scene.place(thing, SECONDS))
    answer = f"{it}{ends}{at} the {value}."
    if thing.act == "leave":
        value = "gone"
        answer = f"{it} is gone{say('q.gone', (' by then', ' at the end', ''), shape)}."
    found.append(Question(f"Where is the {shape} at the end?", answer, "end", value))
    return found
