"""The page: one template, filled with a recorded run."""

import json
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("page.html")


def render(record: dict[str, Any]) -> str:
    """A self-contained HTML page of a recorded run."""
    data = {
        **record,
        "differs": differences(record["relaxed"]["ids"], record["strict"]["ids"]),
    }
    # In a script element only "<" could end the data early.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return TEMPLATE.read_text().replace("{{record}}", text)


def differences(relaxed: list[int], strict: list[int]) -> dict[str, list[int]]:
    """Which tokens of either answer the other one lacks, by place."""
    blocks = SequenceMatcher(None, relaxed, strict, autojunk=False).get_matching_blocks()
    same_relaxed = {block.a + i for block in blocks for i in range(block.size)}
    same_strict = {block.b + i for block in blocks for i in range(block.size)}
    return {
        "relaxed": [i for i in range(len(relaxed)) if i not in same_relaxed],
        "strict": [i for i in range(len(strict)) if i not in same_strict],
    }
