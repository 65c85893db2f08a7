"""A program in SGLang's frontend language: several questions about one video, asked side by side.

The forks share the video: it is encoded and prefilled once.

    python examples/frontend_program.py clip.mp4 --url http://127.0.0.1:30000
"""

import argparse
from pathlib import Path
from typing import Any

import sglang as sgl
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint

from lvspec_sglang import patches

QUESTIONS = (
    "How many objects are there?",
    "How many objects move?",
    "What color is the background?",
)


@sgl.function
def ask_all(s: Any, video: str, frames: int) -> None:
    s += sgl.user_begin() + sgl.video(video, frames)
    s.sync()  # so that the fork sends the video ahead of the questions
    forks = s.fork(len(QUESTIONS))
    for fork, question in zip(forks, QUESTIONS, strict=True):
        fork += question + sgl.user_end()
        fork += sgl.assistant(sgl.gen("answer", max_tokens=60))
    s["answers"] = [fork["answer"] for fork in forks]
    s["cached"] = [fork.get_meta_info("answer")["cached_tokens"] for fork in forks]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("video")
    parser.add_argument("--url", default="http://127.0.0.1:30000")
    parser.add_argument("--frames", type=int, default=14)
    arguments = parser.parse_args()
    if not Path(arguments.video).is_file():
        parser.error(f"no file {arguments.video}")
    patches.apply(patches.FRONTEND)  # sgl.video fails in SGLang 0.5.23 without it

    # A served name that says "Qwen2.5-VL" chooses the template by itself.
    backend = RuntimeEndpoint(arguments.url, chat_template_name="qwen2-vl")
    state = ask_all.run(arguments.video, arguments.frames, backend=backend, temperature=0)
    for question, answer, cached in zip(QUESTIONS, state["answers"], state["cached"], strict=True):
        print(f"{question}\n  {answer.strip()}  ({cached} prompt tokens cached)")


if __name__ == "__main__":
    main()
