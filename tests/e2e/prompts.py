"""Prompts in the tiny checkpoints' chat form, and the calls the tests make with them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lvspec_sglang.serving import LocalServer

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def chat(*turns: str) -> str:
    """User and assistant turns, alternating, and the assistant's next turn opened."""
    text = ""
    for number, turn in enumerate(turns):
        role = "assistant" if number % 2 else "user"
        text += f"<|im_start|>{role}\n{turn}<|im_end|>\n"
    return text + "<|im_start|>assistant\n"


def request(prompt: str, tokens: int = 40, **more: Any) -> dict[str, Any]:
    """A greedy ``/generate`` payload; ``video`` and ``image`` take paths, the rest sampling."""
    payload: dict[str, Any] = {"text": prompt}
    for key in ("video", "image"):
        if key in more:
            paths = more.pop(key)
            paths = [paths] if isinstance(paths, Path) else paths
            payload[f"{key}_data"] = [str(path) for path in paths]
    for key in ("return_logprob", "top_logprobs_num"):
        if key in more:
            payload[key] = more.pop(key)
    payload["sampling_params"] = {"temperature": 0, "max_new_tokens": tokens, **more}
    return payload


def answer(server: LocalServer, payload: dict[str, Any]) -> dict[str, Any]:
    """Generate, and keep what must not depend on speculation."""
    results = server.generate(**payload)
    results = results if isinstance(results, list) else [results]
    return {
        "ids": [result["output_ids"] for result in results],
        "finish": [result["meta_info"]["finish_reason"] for result in results],
        "prompt": [result["meta_info"]["prompt_tokens"] for result in results],
    }


def answer_all(server: LocalServer, payloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Generate concurrently, answers in the order of the payloads."""
    with ThreadPoolExecutor(len(payloads)) as pool:
        return list(pool.map(lambda payload: answer(server, payload), payloads))


def flush(server: LocalServer) -> None:
    """Empty the radix cache once the server is idle, which it is a moment after it answered."""
    server.post("/flush_cache?timeout=60", {}).raise_for_status()
