"""A recorded run: one question asked relaxed, with a record of every token, and asked strict."""

import dataclasses
from pathlib import Path
from typing import Any

from lvspec_sglang.client import Client
from lvspec_sglang.config import RelaxConfig
from lvspec_sglang.config_json import parse_request
from lvspec_sglang.metrics import TRACE_COLUMNS
from lvspec_sglang.relaxation import log_share
from lvspec_sglang.report.frames import read_frames
from lvspec_sglang.verify.quantile import MIN_HELD, ScoreRing

BROKEN = "\N{REPLACEMENT CHARACTER}"


def record_run(
    client: Client, video: Path, prompt: str, given: dict[str, Any], max_tokens: int
) -> dict[str, Any]:
    """Ask ``prompt`` about ``video`` twice, relaxed as ``given`` says and strict.

    Args:
        given: a request's ``lvspec`` object, for example ``{"preset": "paper"}``.

    Returns:
        What a page shows, as JSON: the answers' tokens, the relaxed one's trace, the frames.

    Raises:
        ValueError: a wrong key or value in ``given``; a video that does not decode; a server that
            keeps no trace.
        Refused: the server refused a request.
    """
    relax = parse_request(given, RelaxConfig()).relax
    frames = read_frames(video)
    content = [client.video_part(video), {"type": "text", "text": prompt}]
    messages = [{"role": "user", "content": content}]

    def ask(lvspec: dict[str, Any]) -> dict[str, Any]:
        return client.chat(
            messages, max_completion_tokens=max_tokens, custom_params={"lvspec": lvspec},
            return_meta_info=True, return_token_ids=True,
        )  # fmt: skip

    relaxed, strict = ask({**given, "trace": True}), ask({"preset": "strict"})
    trace = relaxed["meta_info"].get("lvspec_trace")
    if trace is None:
        raise ValueError(
            f"the server at {client.url} keeps no record of its tokens; start one with "
            "--speculative-algorithm LVSPEC of this release"
        )
    info = client.info()
    reference = info["internal_states"][0]["lvspec"]["reference_scores"]
    return {
        "video": video.name,
        "prompt": prompt,
        "target": Path(info["model_path"]).name,
        "draft": Path(info["speculative_draft_model_path"] or info["model_path"]).name,
        "steps": info["speculative_num_steps"],
        "preset": given.get("preset"),
        "relax": dataclasses.asdict(relax),
        # As the rule computes it, so that nothing is rounded twice.
        "log_floor": _log(relax.floor),
        "log_visual_floor": _log(relax.threshold_floor),
        "ring": {"size": ScoreRing(1).size, "least": MIN_HELD, "reference": reference},
        "trace": {key: trace[key] for key in TRACE_COLUMNS},
        "relaxed": _run(client, relaxed),
        "strict": _run(client, strict),
        "texts": _texts(client, {*trace["drafted"], *trace["target"]}),
        "frames": frames,
    }


def check_record(record: Any) -> dict[str, Any]:
    """Return ``record`` if it is one.

    Raises:
        ValueError: what is missing or does not fit.
    """
    needed = "video prompt target draft steps preset relax log_floor trace relaxed strict".split()
    needed += ["ring", "texts", "frames"]
    if not isinstance(record, dict) or (missing := [key for key in needed if key not in record]):
        lacks = f"; it lacks {', '.join(missing)}" if isinstance(record, dict) else ""
        raise ValueError(f"not a record of `lvspec report --record`{lacks}")
    try:
        lengths = {key: len(record["trace"].get(key, ())) for key in TRACE_COLUMNS}
        tokens = len(record["relaxed"]["ids"])
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a whole record of `lvspec report --record` ({error})") from error
    if set(lengths.values()) != {tokens}:
        raise ValueError(f"a record of {tokens} tokens whose trace has {lengths}")
    return record


def _log(share: float) -> float | None:
    return log_share(share) if share else None


def _run(client: Client, choice: dict[str, Any]) -> dict[str, Any]:
    ids, meta = choice["response_token_ids"], choice["meta_info"]
    return {
        "ids": ids,
        "pieces": pieces(client, ids),
        # An answer of one token took no round.
        "rounds": meta.get("spec_verify_ct", 0),
        "accepted": meta.get("spec_num_correct_drafts", 0),
    }


def pieces(client: Client, ids: list[int]) -> list[str]:
    """Each token's share of the text; a character of several tokens belongs to the last of them."""
    texts = client.detokenize([ids[: end + 1] for end in range(len(ids))]) if ids else []
    whole = [text.rstrip(BROKEN) for text in texts]
    return [text[len(before) :] for before, text in zip(["", *whole], whole, strict=False)]


def _texts(client: Client, ids: set[int]) -> dict[int, str]:
    known = sorted(token for token in ids if token >= 0)
    return dict(zip(known, client.detokenize([[token] for token in known]), strict=True))
