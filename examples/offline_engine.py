"""LVSPEC without a server: ``sglang.Engine`` on a list of clips, with the mini pair by default.

python examples/offline_engine.py clips/*.mp4
"""

import argparse

import sglang
from transformers import AutoTokenizer

from lvspec_sglang import miniworld

QUESTION = "Describe the video."


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--model", default=str(miniworld.paths().target))
    parser.add_argument("--draft", default=str(miniworld.paths().draft))
    parser.add_argument("--preset", default="strict")
    arguments = parser.parse_args()

    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    prompt = AutoTokenizer.from_pretrained(arguments.model).apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    engine = sglang.Engine(
        model_path=arguments.model,
        speculative_algorithm="LVSPEC",
        speculative_draft_model_path=arguments.draft,
    )
    answers = engine.generate(
        [prompt] * len(arguments.videos),
        {
            "temperature": 0,
            "max_new_tokens": 200,
            "custom_params": {"lvspec": {"preset": arguments.preset}},
        },
        video_data=arguments.videos,
    )
    for video, answer in zip(arguments.videos, answers, strict=True):
        length = answer["meta_info"].get("spec_accept_length", 0.0)  # absent without a round
        print(f"{video}: {answer['text']}\n  {length:.1f} tokens a round")
    engine.shutdown()


if __name__ == "__main__":
    main()
