"""Scores of answers against the truth; no model judges another."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lvspec_sglang.miniworld.parse import is_complete, parse_answer, parse_caption


@dataclass
class Score:
    """Counts over a set of answers.

    `wrong` lists each fact missed, stated falsely or made up; `tally` has right and total by key.
    """

    facts: int = 0
    right: int = 0
    answers: int = 0
    parsed: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)
    tally: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        return self.right / self.facts if self.facts else 0.0

    @property
    def parse_rate(self) -> float:
        return self.parsed / self.answers if self.answers else 0.0

    def add_caption(self, video: str, truth: dict[str, str], text: str) -> None:
        """Count a caption: every true fact, and every fact it states that is not one."""
        found = parse_caption(text)
        self.answers += 1
        self.parsed += is_complete(found)
        self.add_facts(video, truth, found)

    def add_facts(self, video: str, truth: dict[str, str], found: dict[str, str]) -> None:
        """Count stated facts against the true ones."""
        for key in sorted(truth.keys() | found.keys()):
            self._add(video, None, key, truth.get(key), found.get(key))

    def add_answer(self, video: str, question: dict[str, str], text: str) -> None:
        """Count an answer to a question, which is one fact."""
        found = parse_answer(question["kind"], text)
        self.answers += 1
        self.parsed += found is not None
        self._add(video, question["question"], question["kind"], question["value"], found)

    def _add(
        self, video: str, question: str | None, key: str, truth: str | None, said: str | None
    ) -> None:
        self.facts += 1
        right, total = self.tally.get(key, (0, 0))
        self.tally[key] = right + (truth == said), total + 1
        if truth == said:
            self.right += 1
        else:
            entry = {"video": video, "question": question, "fact": key}
            self.wrong.append(entry | {"truth": truth, "said": said})

    def to_json(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy,
            "parse_rate": self.parse_rate,
            "facts": self.facts,
            "answers": self.answers,
            "wrong": self.wrong,
        }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file. Raises ValueError that names the line that is not one."""
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{number}: not JSON ({error}): write one object a line"
            ) from error
        if not isinstance(entry, dict):
            raise ValueError(f"{path}:{number}: a {type(entry).__name__}: write one object a line")
        entries.append(entry)
    return entries


def score_answers(
    truth: Iterable[dict[str, Any]], answers: Iterable[dict[str, Any]]
) -> dict[str, Score]:
    """Scores under "captions", "questions" and "all".

    `truth` holds lines of truth.jsonl; an answer names its `video`, its `question` (None for the
    caption) and its `text`. Raises ValueError for an answer whose video or question is not there.
    """
    clips = {Path(clip["video"]).name: clip for clip in truth}
    scores = {name: Score() for name in ("captions", "questions", "all")}
    for answer in answers:
        missing = {"video", "question", "text"} - answer.keys()
        if missing:
            raise ValueError(f"answer {answer} lacks {sorted(missing)}: give video, question, text")
        name = Path(answer["video"]).name
        if name not in clips:
            raise ValueError(f"video {name!r} is not in the truth file: score the clips it names")
        if answer["question"] is None:
            for part in ("captions", "all"):
                scores[part].add_caption(name, clips[name]["facts"], answer["text"])
            continue
        known = {item["question"]: item for item in clips[name]["questions"]}
        if answer["question"] not in known:
            raise ValueError(
                f"{name} has no question {answer['question']!r}: use null for the caption, or a"
                f" question of this clip in the truth file"
            )
        for part in ("questions", "all"):
            scores[part].add_answer(name, known[answer["question"]], answer["text"])
    return scores
