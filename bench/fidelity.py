"""How much of the target's fact accuracy a verification rule keeps, and how much it accepts."""

import argparse
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from lvspec_sglang.bench import plot, table
from lvspec_sglang.bench.answers import AnswerLog
from lvspec_sglang.bench.bootstrap import resamples
from lvspec_sglang.bench.conversations import (
    CONCURRENT,
    KV_TOKENS,
    PREFILLS,
    held_out_clips,
    run_all,
)
from lvspec_sglang.bench.geometric import relaxed
from lvspec_sglang.bench.rule_sets import chosen
from lvspec_sglang.bench.rules import ALONE, STRICT, Rule, served
from lvspec_sglang.bench.tally import count, figures
from lvspec_sglang.bench.versus import compare
from lvspec_sglang.miniworld import paths
from lvspec_sglang.record import new_record, write_record
from lvspec_sglang.serving import LocalServer, dtype
from lvspec_sglang.verify.rule import DEFAULT_STEPS

SOUND = 0.98


class NotIdentical(ValueError):
    """Strict verification gave another answer than the target alone: nothing else counts."""


def run(arguments: argparse.Namespace) -> None:
    """Measure the rules asked for, print the table, write the record and the plot.

    Raises:
        ValueError: a wrong argument, or strict answers that are not the target's.
        ServerFailed: a server did not start.
    """
    rules = chosen(arguments.rules)
    if arguments.plot is not None:
        plot.need_matplotlib()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lvspec-fidelity-")))
        path = arguments.json or folder / "fidelity.json"
        log = stack.enter_context(contextlib.closing(AnswerLog(path.with_suffix(".answers.jsonl"))))
        writer = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(writer.shutdown, cancel_futures=True)
        truths = held_out_clips(
            arguments.clips, arguments.seed, arguments.questions, folder, writer
        )
        log.check(truths)
        record = new_record("fidelity") | {
            "pair": "mini",
            "dtype": dtype()[1],
            "concurrent": CONCURRENT,
            "servers": [],
            **{key: getattr(arguments, key) for key in ("clips", "seed", "questions")},
        }

        def report() -> None:
            record["commits"] = sorted(commit or "unknown" for commit in log.commits)
            record["rows"] = table_rows(rules, truths, log)
            record["warnings"] = warnings(record["rows"])
            write_record(path, record)

        stop = threading.Event()
        with ThreadPoolExecutor(arguments.servers) as pool:
            runs = [pool.submit(_measure, *group, truths, log, stop) for group in servers(rules)]
            try:
                for done in as_completed(runs):
                    if (timing := done.result()) is not None:
                        record["servers"].append(timing)
                    report()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        report()
        for warning in record["warnings"]:
            print(f"WARNING: {warning}")
        print("\n".join(table.lines(record["rows"])))
        if arguments.plot is not None:
            plot.draw(record, arguments.plot)


def servers(rules: Sequence[Rule]) -> list[tuple[dict[str, Any] | None, list[Rule]]]:
    """Rules by the server they need: the target alone first, then those of equal settings."""
    groups: dict[str, tuple[dict[str, Any] | None, list[Rule]]] = {}
    for rule in rules:
        shared = served(rule.meaning())
        groups.setdefault(json.dumps(shared), (shared, []))[1].append(rule)
    return list(groups.values())


def _measure(
    config: dict[str, Any] | None,
    rules: list[Rule],
    truths: list[dict[str, Any]],
    log: AnswerLog,
    stop: threading.Event,
) -> dict[str, Any] | None:
    """Hold every conversation of ``rules`` that the log lacks, on one server of their own.

    A clip's rules run side by side, so that they share its prompt in the radix cache.
    """
    for rule in rules:
        log.begin(rule)
    requests = {rule.name: (rule.meaning() or {}).get("relax") for rule in rules}
    jobs = [
        (rule.name, requests[rule.name], truth)
        for truth in truths
        for rule in rules
        if not log.has(rule.name, truth["video"])
    ]
    if not jobs:
        return None
    compared = {rule.name for rule in rules if rule.strict}
    name = "target alone" if config is None else json.dumps(config)
    print(f"{name}: {len(jobs)} conversations of {len(rules)} rules", flush=True)
    began = time.monotonic()

    def keep(rule: str, truth: dict[str, Any], answers: list[dict[str, Any]]) -> None:
        if stop.is_set():
            raise CancelledError
        log.add(rule, truth["video"], answers)
        if rule in compared:
            check_identical(log, rule, truth["video"])

    with start(config) as server:
        ready = time.monotonic()
        run_all(server, jobs, keep)
    seconds = time.monotonic() - ready
    print(
        f"{name}: {seconds:.0f} s, {seconds / len(jobs):.2f} s a conversation; "
        f"up after {ready - began:.0f} s",
        flush=True,
    )
    return {"config": config, "conversations": len(jobs), "seconds": round(seconds, 1)}


def check_identical(log: AnswerLog, rule: str, video: str) -> None:
    """Compare a strict rule's answers with the target's own, once the log has both.

    Raises:
        NotIdentical: a token differs.
    """
    if not (log.has(ALONE, video) and log.has(rule, video)):
        return
    for alone, strict in zip(log.of(ALONE, video), log.of(rule, video), strict=True):
        if alone["ids"] != strict["ids"]:
            raise NotIdentical(
                f"{rule} is not the target alone on {video}: nothing was reported.\n"
                f"  alone:  {alone['text']}\n  strict: {strict['text']}"
            )


def start(config: dict[str, Any] | None) -> LocalServer:
    """A server of the mini pair's target; with LVSPEC and ``config`` unless that is None."""
    target, draft = paths()
    arguments = [
        *dtype(), "--random-seed", "1", "--max-running-requests", str(CONCURRENT),
        "--max-total-tokens", str(KV_TOKENS), "--prefill-max-requests", str(PREFILLS),
    ]  # fmt: skip
    if config is not None:
        arguments += ["--speculative-algorithm", "LVSPEC"]
        arguments += ["--speculative-draft-model-path", str(draft)]
        arguments += ["--lvspec-config", json.dumps(config)]
    return LocalServer(target, *arguments)


def warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is suspicious about a run: the pair's target alone is nearly always right."""
    return [
        f"the target alone is right in {row['accuracy']:.2%} of facts, below {SOUND:.0%}: is it"
        " asked as it was trained?"
        for row in rows
        if row["rule"] == ALONE and row["accuracy"] < SOUND
    ]


def table_rows(
    rules: Sequence[Rule], truths: list[dict[str, Any]], log: AnswerLog
) -> list[dict[str, Any]]:
    """A row for every rule that has answered about every clip.

    Raises:
        NotIdentical: strict answers are not the target's.
    """
    for rule in rules:
        if rule.strict:
            for truth in truths:
                check_identical(log, rule.name, truth["video"])
    draws = resamples(len(truths))
    whole = [rule for rule in rules if all(log.has(rule.name, t["video"]) for t in truths)]
    counts = {
        rule.name: count(truths, [log.of(rule.name, t["video"]) for t in truths]) for rule in whole
    }
    if ALONE not in counts or STRICT not in counts:
        return []
    rows = []
    for rule in whole:
        row = figures(counts[rule.name], counts[ALONE], counts[STRICT], draws)
        row |= compare(rule, whole, counts, draws)
        meaning = rule.meaning()
        if meaning is not None and meaning["relax"]["loose_ratio"]:
            strict = float(counts[STRICT].accepted.sum() / counts[STRICT].rounds.sum())
            row["T_geometric"] = relaxed(strict, meaning["relax"]["loose_ratio"], DEFAULT_STEPS)
        rows.append({"rule": rule.name, "family": rule.family, "relaxation": meaning, **row})
    return rows
