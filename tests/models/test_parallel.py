"""Tensor and data parallel servers: strict answers the target's, relaxed ones those of one rank."""

import json
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang import tiny
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.serving import LocalServer
from tests.e2e.prompts import VIDEO, answer, answer_all, chat, request

DRAFT_LENGTH = {"measure": True, "run": 5, "trial": 2, "longest": 5}


class Pair:
    """A target and its noisy copy, what is asked of them, and the answers on single ranks."""

    def __init__(self, folder: Path) -> None:
        self.target = tiny.write_qwen2_5_vl(folder / "target", tiny.TARGET, seed=1)
        self.draft = tiny.write_perturbed(self.target, folder / "draft", noise=0.02, seed=2)
        clip = write_clip(folder / "clip.mp4", moving_square(16, seed=1))
        self.strict = [
            request(chat("hello there"), 60, ignore_eos=True),
            request(chat(VIDEO + "what is it?"), video=clip),
            request(chat(VIDEO + "and where?"), video=clip),
            request(chat("json"), regex=r'\{"a": [0-9]{1,9}\}'),
            request(chat("stop"), stop=["a", "7", "$"]),
            request(chat("penalised"), 20, frequency_penalty=0.6),
        ]
        self.relaxed = [
            request(
                chat(VIDEO + "what is it?"), 60, video=clip, ignore_eos=True,
                custom_params={"lvspec": {**relax, "trace": True}},
            )
            for relax in ({"preset": "paper"}, {"loose_ratio": 0.5, "floor": 0.01})
        ]  # fmt: skip
        self.common = ("--dtype", "float32", "--random-seed", "1")
        with LocalServer(self.target, *self.common) as alone:
            self.strict_answers = [answer(alone, each) for each in self.strict]
        with self.lvspec("--dp-size", "2") as replicas:
            self.replica_answers = self.ask_strictly(replicas)
            self.relaxed_answers = self.relax(replicas)

    def lvspec(self, *arguments: str, **config: Any) -> LocalServer:
        text = json.dumps({"preset": "strict", **config})
        return LocalServer(
            self.target, *self.common, "--speculative-algorithm", "LVSPEC",
            "--speculative-draft-model-path", str(self.draft), *arguments,
            env={"LVSPEC_CHECK_DRAFT_KV": "1", "LVSPEC_CONFIG": text},
        )  # fmt: skip

    def relax(self, server: LocalServer) -> list[tuple[list[int], list[int]]]:
        """Tokens and their kinds of the relaxed requests."""
        results = [server.generate(**each) for each in self.relaxed]
        return [(r["output_ids"], r["meta_info"]["lvspec_trace"]["kind"]) for r in results]

    def ask_strictly(self, server: LocalServer) -> list[list[dict[str, Any]]]:
        """The strict requests one by one, then all at once."""
        return [[answer(server, each) for each in self.strict], answer_all(server, self.strict)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("parallel"))


def test_two_replicas_answer_as_the_target(pair: Pair) -> None:
    assert pair.replica_answers == [pair.strict_answers] * 2


def test_two_ranks_answer_as_one(pair: Pair) -> None:
    """Every round the server checks that its ranks decided alike before rank 0's verdict counts."""
    with pair.lvspec("--tp-size", "2") as server:
        assert pair.ask_strictly(server) == [pair.strict_answers] * 2
        assert pair.relax(server) == pair.relaxed_answers
    for _, kinds in pair.relaxed_answers:
        assert {1, 2} & set(kinds)


def test_two_ranks_change_the_draft_length_and_prune_together(pair: Pair) -> None:
    pruning = {"pruning": "verifier", "keep": 0.25, "keep_at_least": 1}
    with pair.lvspec("--tp-size", "2", draft_length=DRAFT_LENGTH, **pruning) as server:
        assert pair.ask_strictly(server) == [pair.strict_answers] * 2
