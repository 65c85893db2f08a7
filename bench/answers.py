"""The answers of a run on disk, a line a conversation, so that a stopped run goes on."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from lvspec_sglang.bench.rules import Rule
from lvspec_sglang.record import commit


class AnswerLog:
    """Conversations by rule and clip, appended to a file as they end.

    Attributes:
        answers: a rule's conversations by clip.
        commits: every commit that measured something in the file.
    """

    def __init__(self, path: Path) -> None:
        """Read what ``path`` holds, if it is there.

        Raises:
            ValueError: a line is no JSON of this bench.
        """
        self.path = path
        self.answers: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.commits: set[str | None] = set()
        self._meanings: dict[str, Any] = {}
        if path.exists():
            for number, line in enumerate(path.read_text().splitlines(), 1):
                try:
                    self._take(json.loads(line))
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{path}:{number} is not a line of this bench: delete it ({error!r})"
                    ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a")
        self._lock = threading.Lock()

    def _take(self, line: dict[str, Any]) -> None:
        if "meaning" in line:
            self._meanings[line["rule"]] = line["meaning"]
            self.commits.add(line["commit"])
        else:
            self.answers.setdefault(line["rule"], {})[line["video"]] = line["answers"]

    def begin(self, rule: Rule) -> None:
        """Name a rule before its conversations.

        Raises:
            ValueError: the file knows a rule of this name with other settings.
        """
        known = self._meanings.get(rule.name, rule.meaning())
        if known != rule.meaning():
            raise ValueError(
                f"{self.path} has {rule.name!r} as {known}, now it is {rule.meaning()}: "
                "give another --json, or delete that file"
            )
        if rule.name not in self._meanings:
            self._write({"rule": rule.name, "meaning": rule.meaning(), "commit": commit()})

    def add(self, rule: str, video: str, answers: list[dict[str, Any]]) -> None:
        self._write({"rule": rule, "video": video, "answers": answers})

    def of(self, rule: str, video: str) -> list[dict[str, Any]]:
        return self.answers[rule][video]

    def has(self, rule: str, video: str) -> bool:
        return video in self.answers.get(rule, {})

    def check(self, truths: Sequence[dict[str, Any]]) -> None:
        """Raises ValueError if conversations in the file asked other questions than ``truths``."""
        turns = {truth["video"]: 1 + len(truth["asked"]) for truth in truths}
        for rule, clips in self.answers.items():
            for video, answers in clips.items():
                if len(answers) != turns.get(video, len(answers)):
                    raise ValueError(
                        f"{self.path}: {rule} has {len(answers)} answers about {video}, now"
                        f" {turns[video]} are asked for: give the same --questions, or another"
                        " --json"
                    )

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._take(line)
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
