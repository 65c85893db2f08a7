"""SGLang's own test kits, as they ship in its wheel, against LVSPEC strict on the trained pair.

A kit is a set of test methods that ask a running server. Where one asks for more than a model of
832 words and 4,096 positions can give, the number is set below; where it asks for what such a
model or LVSPEC cannot answer at all, it is left out, with the reason beside it.
"""

import contextlib
import json
import pkgutil
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import skip

import pytest
import requests
from sglang.test import kits, test_utils
from sglang.test.kits import (
    basic_scheduler_stress_kit,
    json_constrained_kit,
    radix_cache_server_kit,
    spec_server_kits,
    streaming_session_kit,
)
from sglang.test.kits.abort_timeout_kit import (
    AbortAllMixin,
    RunningTimeoutTwoWaveMixin,
    WaitingTimeoutMixin,
)
from sglang.test.kits.basic_api_contract_kit import BasicAPIContractMixin
from sglang.test.kits.basic_scheduler_stress_kit import BasicSchedulerStressMixin
from sglang.test.kits.cache_hit_kit import run_multiturn_cache_hit_test
from sglang.test.kits.ebnf_constrained_kit import EBNFConstrainedMixin
from sglang.test.kits.json_constrained_kit import JSONConstrainedMixin
from sglang.test.kits.matched_stop_kit import MatchedStopMixin
from sglang.test.kits.pause_generation_kit import PauseResumeInPlaceMixin
from sglang.test.kits.regex_constrained_kit import RegexConstrainedMixin
from sglang.test.kits.spec_server_kits import (
    SpecCorrectnessKit,
    SpecFeatureKit,
    SpecGrammarKit,
    SpecLogprobKit,
    SpecParityKit,
    SpecPenaltyKit,
)
from sglang.test.kits.streaming_session_kit import StreamingSessionKitMixin
from sglang.test.server_fixtures import streaming_session_fixture

from lvspec_sglang.miniworld import paths
from lvspec_sglang.miniworld.tokenizer import corpus
from lvspec_sglang.serving import LocalServer

# Kits that are not run, by module, and of ``spec_server_kits`` by class.
NOT_RUN = {
    "anthropic_messages_kit": "an API in front of the engine; asks for facts and tool calls",
    "attention_unittest": "unit tests of the host's GPU attention",
    "basic_decode_correctness_kit": "asks for facts of the world",
    "dsa_metadata_kit": "another model family",
    "eval_accuracy_kit": "downloads its questions",
    "fwd_occupancy_kit": "measures a GPU",
    "json_mode_kit": "any JSON object will do: the pair, taught none, never ends one",
    "kl_divergence_kit": "downloads its prompts; SpecLogprobKit asks the same of log-probabilities",
    "lm_eval_kit": "downloads its questions",
    "mmmu_vlm_kit": "downloads its questions",
    "pd_parity_kit": "disaggregation, which LVSPEC refuses",
    "perf_bench_kit": "measures a GPU",
    "prefix_cache_branching_kit": "caches of linear-attention models",
    "reasoning_kit": "reasoning models",
    "spec_decoding_kit": "measures a GPU",
    "unified_radix_cache": "unified memory, which LVSPEC refuses",
    "unified_radix_cache_kit": "unified memory, which LVSPEC refuses",
    "vlm_perf_kit": "measures a GPU",
    "SpecAccuracyKit": "downloads its questions",
    "SpecHiddenStatesKit": "hidden states, which LVSPEC refuses",
    "SpecPerfKit": "downloads its questions",
    "SpecSamplingMaskKit": "the host refuses sampling masks with this algorithm",
}
WORDS = range(8, 820)  # the ids of the pair's ordinary tokens
LONGEST_ANSWER = 96
ENDLESS_ANSWER = 3900
# Strings with an end: an untaught model goes on as long as a schema lets it.
SHORT = {"type": "string", "pattern": "^[A-Za-z]{1,6}$"}


class SizedRequests:
    """``requests``, with the token ids of a larger vocabulary folded and long answers cut."""

    get = staticmethod(requests.get)

    @staticmethod
    def post(url: str, json: dict[str, Any], **more: Any) -> requests.Response:
        json = dict(json)
        for key in {"input_ids", "token_ids_logprob"} & json.keys():
            json[key] = _fold(json[key])
        if "sampling_params" in json:
            json["sampling_params"] = _cut(json["sampling_params"])
        return requests.post(url, json=json, **more)


class EndlessRequests:
    """``requests``, with what asks for 100,000 tokens going on to the end of the pair's context."""

    get = staticmethod(requests.get)

    @staticmethod
    def post(url: str, json: dict[str, Any] | None = None, **more: Any) -> requests.Response:
        sampling = (json or {}).get("sampling_params", {})
        if sampling.get("max_new_tokens", 0) > ENDLESS_ANSWER:
            endless = {**sampling, "max_new_tokens": ENDLESS_ANSWER, "ignore_eos": True}
            json = {**(json or {}), "sampling_params": endless}
        return requests.post(url, json=json, **more)


def _fold(ids: Any) -> Any:
    if isinstance(ids, list):
        return [_fold(each) for each in ids]
    return ids if ids < WORDS.stop else WORDS[ids % len(WORDS)]


def _cut(sampling: Any) -> Any:
    if isinstance(sampling, list):
        return [_cut(each) for each in sampling]
    return {**sampling, "max_new_tokens": min(sampling["max_new_tokens"], LONGEST_ANSWER)}


@pytest.fixture(scope="module", autouse=True)
def sized() -> Iterator[None]:
    """Fit the kits' constants to the model's size."""
    with pytest.MonkeyPatch.context() as patch:
        for kit in (spec_server_kits, radix_cache_server_kit, json_constrained_kit, test_utils):
            patch.setattr(kit, "requests", SizedRequests)
        patch.setattr(streaming_session_kit, "requests", EndlessRequests)
        tree = radix_cache_server_kit.gen_radix_tree
        patch.setattr(radix_cache_server_kit, "gen_radix_tree", lambda: tree(24, 64))
        patch.setattr(streaming_session_fixture, "CONCURRENT_LOGPROB_ROUNDS", 1)
        patch.setattr(streaming_session_fixture, "STRESS_NUM_TURNS", 2)
        yield


COMMON = ("--dtype", "float32", "--random-seed", "1")


def lvspec(*arguments: str, **env: str) -> LocalServer:
    target, draft = paths()
    return LocalServer(
        target, *COMMON, "--speculative-algorithm", "LVSPEC",
        "--speculative-draft-model-path", str(draft), "--chunked-prefill-size", "512",
        *arguments, env=env,
    )  # fmt: skip


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What the target alone says to the prompts of the kits that compare answers."""
    stress = basic_scheduler_stress_kit
    prompts = [stress._CONCURRENT_PREFIX + text for text, _ in stress._CONCURRENT_QA]
    prompts += SpecParityKit.parity_prompts
    with LocalServer(paths()[0], *COMMON) as alone:
        return {prompt: spec_server_kits._greedy(alone.url, prompt) for prompt in prompts}


@pytest.fixture(scope="module")
def checked() -> Iterator[LocalServer]:
    """LVSPEC, its memory and its draft's KV checked in every round."""
    checks = {
        "LVSPEC_CHECK_DRAFT_KV": "1",
        "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1",
        "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1",
    }
    # Free to choose, the pair puts nothing but spaces into a JSON object.
    flags = ("--enable-streaming-session", "--constrained-json-disable-any-whitespace")
    with lvspec(*flags, **checks) as server:
        yield server


@pytest.fixture(scope="module")
def impatient() -> Iterator[LocalServer]:
    """LVSPEC with room for four requests and short timeouts."""
    timeouts = {"SGLANG_REQ_WAITING_TIMEOUT": "1", "SGLANG_REQ_RUNNING_TIMEOUT": "40"}
    with lvspec("--max-running-requests", "4", **timeouts) as server:
        yield server


class Served(unittest.TestCase):
    """What the kits read off themselves."""

    which = "checked"
    server: LocalServer
    model = str(paths()[0])

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def attach(cls, request: pytest.FixtureRequest) -> None:
        from transformers import AutoTokenizer

        cls.server = request.getfixturevalue(cls.which)
        cls.base_url = cls.server.url
        cls.process = cls.server.process
        cls.tokenizer = AutoTokenizer.from_pretrained(cls.model)

    @pytest.fixture(autouse=True)
    def healthy(self) -> Iterator[None]:
        yield
        assert self.process.poll() is None, self.server.log_tail()
        assert self.server.get("/health").ok


class TestSpeculation(
    SpecCorrectnessKit, SpecLogprobKit, SpecPenaltyKit, SpecFeatureKit, SpecGrammarKit, Served
):
    """The kits of a speculative server."""

    # Words the pair never saw: measured 1.4 to 2.0.
    acc_length_thres = 1.2
    batch_accept_len_thres = 1.2
    # fp32; bfloat16 needs 0.5.
    logprob_match_delta = 0.005
    grammar_json_schema = json.dumps(
        {
            "type": "object",
            "properties": {
                "name": SHORT,
                "population": {"type": "integer", "minimum": 0, "maximum": 99},
                "country": SHORT,
                "capital": SHORT,
            },
            "required": ["name", "population", "country", "capital"],
        }
    )

    test_logprob_mixed = skip("112 prompts of up to 2,000 tokens take minutes on a CPU")(
        SpecLogprobKit.test_logprob_mixed
    )
    test_constrained_decoding = skip("any JSON object will do: the pair never ends one")(
        SpecFeatureKit.test_constrained_decoding
    )

    def send_request(self) -> None:
        text = "a red square moves left. " * 4
        for tokens in (64, 96):
            self.server.generate(text=text, sampling_params={"max_new_tokens": tokens})

    def send_requests_abort(self) -> None:
        payload = {"text": "a blue disc", "sampling_params": {"max_new_tokens": 1024}}
        for timeout in (0.2, 0.5, 1.0):
            with contextlib.suppress(requests.Timeout):
                self.server.post("/generate", payload, timeout_s=timeout)

    def run_decode(self, sampling_params: dict[str, Any]) -> None:
        self.server.generate(
            text="a green triangle",
            sampling_params={"max_new_tokens": 48, "temperature": 0.7, **sampling_params},
            return_logprob=True,
            top_logprobs_num=5,
            return_text_in_logprobs=True,
            logprob_start_len=0,
        )


class TestParity(SpecParityKit, Served):
    """Greedy answers against the target alone."""

    @classmethod
    def setUpClass(cls) -> None:
        """The kit would start a reference server here."""

    @pytest.fixture(autouse=True)
    def reference(self, said: dict[str, str]) -> None:
        self.parity_ref_outputs = said


class TestSchedulerStress(BasicSchedulerStressMixin, Served):
    """Eight requests at once on one prefix, each with the target's own answer."""

    sanity_max_new_tokens_short = 48
    test_streaming_response = skip("asks for the capital of France")(
        BasicSchedulerStressMixin.test_streaming_response
    )
    test_long_prompt = skip("its prompt is 24,000 tokens here, of at most 4,096")(
        BasicSchedulerStressMixin.test_long_prompt
    )

    @pytest.fixture(autouse=True)
    def answers(self, said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        stress = basic_scheduler_stress_kit
        pairs = [
            (text, said[stress._CONCURRENT_PREFIX + text].lower())
            for text, _ in stress._CONCURRENT_QA
        ]
        monkeypatch.setattr(stress, "_CONCURRENT_QA", pairs)


class TestAborts(AbortAllMixin, Served):
    """Aborts of everything at once."""

    abort_all_num_requests = 12
    abort_all_max_new_tokens = ENDLESS_ANSWER


class TestTimeouts(WaitingTimeoutMixin, RunningTimeoutTwoWaveMixin, Served):
    """Requests that wait or run too long."""

    which = "impatient"
    waiting_timeout_num_requests = 5
    # Over the waiting timeout on any machine, and far below the running timeout on a slow one.
    waiting_timeout_max_new_tokens = 128
    running_timeout_num_wave1 = 2
    running_timeout_num_wave2 = 2
    running_timeout_sleep = 1
    running_timeout_max_new_tokens = ENDLESS_ANSWER


class TestMatchedStop(MatchedStopMixin, Served):
    """Stop strings, patterns and tokens, in what the pair has to say."""

    def _run_completions_generation(self, **given: Any) -> None:
        super()._run_completions_generation(**self._fit(given, "The capital of France is"))

    def _run_chat_completions_generation(self, **given: Any) -> None:
        super()._run_chat_completions_generation(**self._fit(given, "What is 2 + 2?"))

    def _fit(self, given: dict[str, Any], prompt: str) -> dict[str, Any]:
        fitted = {key: "." if value == "\n" else value for key, value in given.items()}
        if isinstance(given["matched_stop"], list):
            fitted["matched_stop"] = [self.tokenizer.eos_token_id]
        return {**fitted, "prompt": prompt}


NO_END = skip("a word of any length: the pair never ends it")


class TestGrammars(JSONConstrainedMixin, RegexConstrainedMixin, EBNFConstrainedMixin, Served):
    """Grammar-constrained answers."""

    json_schema = json.dumps(
        {
            "type": "object",
            "properties": {
                "name": SHORT,
                "population": {"type": "integer", "minimum": 0, "maximum": 99},
            },
            "required": ["name", "population"],
            "additionalProperties": False,
        }
    )
    test_regex_generate_complex_json = NO_END(
        RegexConstrainedMixin.test_regex_generate_complex_json
    )
    test_regex_generate_custom_log_format = NO_END(
        RegexConstrainedMixin.test_regex_generate_custom_log_format
    )
    test_ebnf_generate_complex_json = NO_END(EBNFConstrainedMixin.test_ebnf_generate_complex_json)
    test_ebnf_generate_custom_log_format = NO_END(
        EBNFConstrainedMixin.test_ebnf_generate_custom_log_format
    )


class TestPause(PauseResumeInPlaceMixin, Served):
    """Generation paused and resumed."""

    pause_num_requests = 6
    pause_max_new_tokens = 200
    pause_duration = 2
    pause_ignore_eos = True


class TestAPI(BasicAPIContractMixin, Served):
    """The HTTP API."""


class TestStreamingSessions(StreamingSessionKitMixin, Served):
    """KV handed from turn to turn, through aborts and beside other requests."""


class TestCacheHits(Served):
    """A conversation's second and third turn find the first one cached."""

    @pytest.fixture(autouse=True)
    def dataset(self, tmp_path: Path) -> None:
        lines = corpus(clips=40)
        talks = [
            {"conversations": [{"value": ask}, {"value": answer}]}
            for ask, answer in zip(lines[::2], lines[1::2], strict=False)
        ]
        self.path = tmp_path / "talks.json"
        self.path.write_text(json.dumps(talks))

    def test_multiturn_cache_hits(self) -> None:
        result = run_multiturn_cache_hit_test(
            self.base_url, self.model, num_clients=6, request_length=96, dataset_path=str(self.path)
        )
        assert result["overall"]["cache_hit_rate"] > 0.5


def test_every_kit_is_run_or_said_not_to_be() -> None:
    found = {module.name for module in pkgutil.iter_modules(kits.__path__)}
    found |= {name for name in vars(spec_server_kits) if name.endswith("Kit")}
    run = {base for case in Served.__subclasses__() for base in case.__mro__}
    names = {base.__name__ for base in run} | {base.__module__.split(".")[-1] for base in run}
    names.add(run_multiturn_cache_hit_test.__module__.split(".")[-1])
    names.add(radix_cache_server_kit.__name__.split(".")[-1])
    assert found - names == NOT_RUN.keys()
