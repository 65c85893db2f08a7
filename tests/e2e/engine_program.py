"""Run by test_engine.py: ``sglang.Engine`` with LVSPEC on payloads, overlap scheduling on.

On the CPU LVSPEC turns overlap off, as its arithmetic is synchronous. Turned on here, the relay of
bonus tokens, the late results and the grammar barrier take the path they take on a GPU.
"""

import json
import sys
from typing import Any

import sglang

from lvspec_sglang.algorithm import LVSpecAlgorithm

settle = LVSpecAlgorithm.handle_server_args


def keep_overlap(self: LVSpecAlgorithm, server_args: Any) -> None:
    settle(self, server_args)
    server_args.disable_overlap_schedule = False


def start_engine(target: str, draft: str) -> sglang.Engine:
    """An engine with LVSPEC and overlap scheduling."""
    LVSpecAlgorithm.handle_server_args = keep_overlap  # type: ignore[method-assign]
    return sglang.Engine(
        model_path=target,
        dtype="float32",
        chunked_prefill_size=128,
        speculative_algorithm="LVSPEC",
        speculative_draft_model_path=draft,
    )


def main() -> None:
    target, draft, payloads = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    engine = start_engine(target, draft)
    overlapping = not engine.get_server_info()["disable_overlap_schedule"]
    together = engine.generate(
        [payload["text"] for payload in payloads],
        [payload["sampling_params"] for payload in payloads],
        video_data=[payload.get("video_data") for payload in payloads],
    )
    ids = [result["output_ids"] for result in together]
    print(json.dumps({"overlapping": overlapping, "ids": ids}), flush=True)
    engine.shutdown()


if __name__ == "__main__":
    main()
