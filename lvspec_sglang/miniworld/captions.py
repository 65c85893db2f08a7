"""Captions of scenes, written with a habit."""

from __future__ import annotations

from lvspec_sglang.miniworld.habits import Habit
from lvspec_sglang.miniworld.lexicon import ACT_VERBS
from lvspec_sglang.miniworld.scene import COUNTS, EVENT_NOUNS, SECONDS, Scene, Thing

CAPTION_PROMPTS = (
    "Describe the video.",
    "What happens in this clip?",
    "Tell me what you see.",
)

ADVERBS = ("slowly", "quite slowly", "smoothly", "steadily", "very gently", "gently")
SUDDEN = ("suddenly", "later", "at some point", "all at once", "quite suddenly")


def caption(scene: Scene, habit: Habit) -> str:
    """One paragraph of 60-120 words: the backdrop, each thing in turn, the events in order."""
    sentences = [_opening(scene, habit)]
    before = "first"
    for rank, thing in enumerate(scene.things):
        sentences.append(_thing(scene, thing, habit, f"{rank}{before}"))
        before = thing.shape
    sentences.append(_order(scene, habit, before))
    return " ".join(sentences)


def _opening(scene: Scene, habit: Habit) -> str:
    paint = scene.backdrop
    count = COUNTS[len(scene.things)]
    say = habit.pick
    return (
        say("open", ("The video shows", "In this clip we see", "Here we can see", "We look at"))
        + say("open.kind", (" a plain", " a simple", " a quiet", " a"))
        + f" {paint}"
        + say("open.noun", (" background", " backdrop", " wall", " setting"), paint)
        + say("open.with", (" with", " that holds", " carrying", " and"), paint)
        + f" {count}"
        + say("open.things", (" objects", " shapes", " things", " figures"), paint + count)
        + say("open.tail", (" in it", " on it", " in view", ""), count)
        + "."
    )


def _thing(scene: Scene, thing: Thing, habit: Habit, before: str) -> str:
    say = habit.pick
    name = f"{thing.color} {thing.shape}"
    key = thing.color + thing.shape
    lead = say("lead", ("A", "Here a", "One", "Here also a", "Now a", "Now one"), before)
    row, column = scene.place(thing, thing.born)
    if thing.act == "appear":
        verb = say("verb.appear", ACT_VERBS["appear"], key)
        enter = say("appear.lead", (" that", " which", " and it"), key)
        when = say("appear.when", ("", *(" " + word for word in SUDDEN)), thing.color)
        where = say("appear.at", (" at", " near", " in"), verb + when)
        stay = say(
            "appear.stay",
            (" and stays there", " and then stays there", " and does not leave again", ""),
            row + column,
        )
        return f"{lead} {thing.size} {name}{enter}{when} {verb}{where} the {row} {column}{stay}."
    sits = say("sit", (" sits", " rests", " is placed", " starts out", " waits"), key)
    at = say("sit.at", (" at", " near", " in"), sits + thing.color)
    start = f"{lead} {thing.size} {name}{sits}{at} the {row} {column}"
    return start + _action(scene, thing, habit, row + column) + "."


def _action(scene: Scene, thing: Thing, habit: Habit, spot: str) -> str:
    say = habit.pick
    key = thing.color + thing.shape
    link = say("link." + thing.size, (" and", " and then", " and it", " but it"), spot)
    verb = say("verb." + thing.act, ACT_VERBS[thing.act], key)
    if thing.act == "still":
        keep = say("still.keep", (" stays", " remains", " is"), spot + link)
        how = say("still.how", ("", " fully", " quite", " perfectly"), thing.color)
        tail = say("still.tail", (" throughout", " all the time", " the whole time", " to the end"),
                   thing.shape + verb)  # fmt: skip
        return f"{link}{keep}{how} {verb}{tail}"
    if thing.act in ("turn", "leave"):
        when = say("when", SUDDEN, thing.color + spot)
        if thing.act == "leave":
            tail = say("leave.tail", ("", " from view", " from the scene", " for good"), key)
            return f"{link} {when} {verb}{tail}"
        tail = say(
            "turn.tail", ("", " on the spot", " without a move", " in place"), thing.new_color
        )
        return f"{link} {when} {verb} {thing.new_color}{tail}"
    how = say("how", ADVERBS, thing.color + spot)
    heading = scene.direction(thing)
    if thing.act == "bounce":
        go = say("bounce.go", (" heads", " runs", " goes"), how + thing.shape)
        wall = say("wall", (" until it", " and", " and then"), heading)
        edge = say("edge", (" back from the wall", " off the wall", " back off the edge",
                            " back again"), key)  # fmt: skip
        return f"{link} {how}{go} {heading}{wall} {verb}{edge}"
    go_verb = say("verb.move", ACT_VERBS["move"], key)
    race = ""
    if thing.act == "overtake":
        link_race = say("race", (" and", " and soon", " and then"), heading + thing.color)
        race = f"{link_race} {verb} the {thing.other}"
    end_row, end_column = scene.place(thing, SECONDS)
    stop = say(
        "stop",
        (" until it stops", " until it rests", " and ends up", " and comes to a stop", " and ends"),
        heading + thing.shape,
    )
    at = say("stop.at", (" at", " near", " in"), stop + heading)
    return f"{link} {how} {go_verb} {heading}{race}{stop}{at} the {end_row} {end_column}"


def _order(scene: Scene, habit: Habit, before: str) -> str:
    say = habit.pick
    nouns = [EVENT_NOUNS[act] for act in scene.events]
    lead = say("order.lead", ("As for timing", "Over the clip", "In time", "All in all"), before)
    if len(nouns) == 1:
        only = say("order.only", (" the only event is", " the one event is", " we only see"), lead)
        return f"{lead},{only} the {nouns[0]}."
    text = lead + say(
        "order.one", (", first comes", ", it starts with", ", first there is"), before
    )
    text += f" the {nouns[0]}"
    text += say("order.two", (", then", ", next", " and then", " and next"), before + nouns[0])
    text += (
        say("order.two.verb", (" comes", " we see", " follows", ""), nouns[0]) + f" the {nouns[1]}"
    )
    if len(nouns) == 3:
        third = (", and last", ", and finally", ", then at last", " and lastly")
        text += say("order.three", third, nouns[0] + nouns[1]) + f" the {nouns[2]}"
    return text + "."
