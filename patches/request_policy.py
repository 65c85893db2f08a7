"""A request's wrong ``custom_params={"lvspec": ...}`` is refused where its parameters are checked.

The host checks sampling parameters in the process that takes requests and answers a ``ValueError``
there with HTTP 400; the scheduler, which uses them, would answer it with its own end.
"""

from typing import Any

from lvspec_sglang.config import RelaxConfig
from lvspec_sglang.config_json import asked_of, parse_request
from lvspec_sglang.patches.base import Patch


def check_relaxation(result: Any, self: Any, vocab_size: int) -> Any:
    """Parse the request's relaxation for its errors.

    Raises:
        ValueError: see ``config_json.asked_of`` and ``config_json.parse_request``.
    """
    parse_request(asked_of(self.custom_params), RelaxConfig())
    return result


PATCHES = (
    Patch(
        "sglang.srt.sampling.sampling_params.SamplingParams.verify",
        ("self", "vocab_size"),
        check_relaxation,
        "AFTER",
        "a misspelt lvspec key would reach the scheduler instead of being refused",
        "the host lets an algorithm check a request's custom_params",
    ),
)
