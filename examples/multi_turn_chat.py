"""Three turns about one video with the openai client; the video is paid for once.

python examples/multi_turn_chat.py clip.mp4 --url http://127.0.0.1:30000
"""

import argparse
from pathlib import Path
from typing import Any

from openai import OpenAI

QUESTIONS = ("Describe the video.", "How many objects are there?", "How many objects move?")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path, help="a file the server can read")
    parser.add_argument("--url", default="http://127.0.0.1:30000")
    parser.add_argument("--preset", default="strict")
    arguments = parser.parse_args()
    client = OpenAI(base_url=f"{arguments.url}/v1", api_key="none")

    messages: list[Any] = []
    for number, question in enumerate(QUESTIONS):
        content: list[Any] = [{"type": "text", "text": question}]
        if number == 0:
            video = {"url": str(arguments.video.resolve())}
            content.insert(0, {"type": "video_url", "video_url": video})
        messages.append({"role": "user", "content": content})

        # What is SGLang's or LVSPEC's own travels in extra_body.
        answer = client.chat.completions.create(
            model="default",
            messages=messages,
            temperature=0,
            max_tokens=200,
            extra_body={
                "custom_params": {"lvspec": {"preset": arguments.preset}},
                "return_meta_info": True,
            },
        ).choices[0]
        meta = answer.meta_info  # type: ignore[attr-defined]
        # An answer of one token took no round, and says nothing of any.
        accepted, rounds = meta.get("spec_num_correct_drafts", 0), meta.get("spec_verify_ct", 0)
        print(f"{question}\n  {answer.message.content}")
        print(
            f"  {meta['cached_tokens']} of {meta['prompt_tokens']} prompt tokens cached, "
            f"{accepted / max(rounds, 1):.1f} drafted tokens accepted a round"
        )
        messages.append({"role": "assistant", "content": answer.message.content})


if __name__ == "__main__":
    main()
