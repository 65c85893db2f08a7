"""``sglang.Engine`` with LVSPEC and overlap scheduling: ``TARGET DRAFT CALLS OPTIONS``.

``CALLS`` is a JSON list of lists of payloads, each list one call; ``OPTIONS`` is the engine's. On
the CPU LVSPEC turns overlap off, as its arithmetic is synchronous. Turned on here, the relay of
bonus tokens, the late results and the grammar barrier take the path they take on a GPU. With
``LVSPEC_TEST_LENGTHS`` the first rounds draft so many tokens, one after the other.
"""

import json
import os
import sys
from typing import Any

import sglang

from lvspec_sglang.algorithm import LVSpecAlgorithm
from lvspec_sglang.draft_length import DraftLength

settle = LVSpecAlgorithm.handle_server_args

if given := os.environ.get("LVSPEC_TEST_LENGTHS"):
    turns = map(int, given.split(","))
    DraftLength.next = lambda self, batch: next(turns, self.steps)  # type: ignore[method-assign]


def keep_overlap(self: LVSpecAlgorithm, server_args: Any) -> None:
    disabled = server_args.disable_overlap_schedule
    settle(self, server_args)
    server_args.disable_overlap_schedule = disabled


def main() -> None:
    target, draft = sys.argv[1:3]
    calls, options = map(json.loads, sys.argv[3:])
    LVSpecAlgorithm.handle_server_args = keep_overlap  # type: ignore[method-assign]
    engine = sglang.Engine(
        model_path=target,
        dtype="float32",
        chunked_prefill_size=128,
        speculative_algorithm="LVSPEC",
        speculative_draft_model_path=draft,
        **options,
    )
    overlapping = not engine.get_server_info()["disable_overlap_schedule"]
    answers = []
    for payloads in calls:
        answers += engine.generate(
            [payload["text"] for payload in payloads],
            [payload["sampling_params"] for payload in payloads],
            video_data=[payload.get("video_data") for payload in payloads],
        )
    print(json.dumps({"overlapping": overlapping, "answers": answers}), flush=True)
    engine.shutdown()


if __name__ == "__main__":
    main()
