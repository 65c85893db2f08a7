"""The page in headless Chromium: the rule in JavaScript, keys, both colour schemes."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lvspec_sglang.config import RelaxConfig
from lvspec_sglang.report.page import render
from lvspec_sglang.verify.quantile import Recent
from lvspec_sglang.verify.rule import Kind, likely_enough, shifted
from tests.report.browser import Browser
from tests.report.runs import ROW, Round, decide, fresh_ring, policy_of, settle, simulate

RELAXED = RelaxConfig(loose_ratio=0.5, draft_shift=2, target_shift=1, floor=0.05)
RISING = RelaxConfig(loose_ratio=0.9, floor=0.01, visual_floor=0.8)
RATIOS = [0.0, 0.05, 0.125, 0.3, 0.5, 0.61, 0.7, 0.99, 1.0]


def show(browser: Browser, folder: Path, record: dict[str, Any], **how: Any) -> None:
    page = folder / "page.html"
    page.write_text(render(record), encoding="utf-8")
    browser.open(page, **how)


def expected(
    record: dict[str, Any], chains: list[Round], ratio: float
) -> tuple[list[float | None], list[int]]:
    """Thresholds and kinds by ``verify``'s own functions, place by place."""
    relax, reference = RelaxConfig(**record["relax"]), record["ring"]["reference"]
    ring = fresh_ring(reference)
    thresholds: list[float | None] = [None]
    kinds: list[int] = [Kind.TARGET]
    at = 1
    for recorded_chain in chains:
        evidence = recorded_chain.evidence._replace(recent=Recent(ring, ROW))
        chain = dataclasses.replace(recorded_chain, evidence=evidence)
        verdict = decide(relax, chain)
        count = int(verdict.accept_lens)
        threshold = float(ring.threshold(ROW, torch.tensor([ratio])))
        decided = min(count, chain.drafted.shape[1])
        policy = policy_of(relax)
        # The trace knows the decided places only.
        shift = shifted(chain.drafted[:, :decided], chain.target[:, :decided], policy)[0]
        bound = torch.tensor([threshold])
        likely = likely_enough(evidence, ring.lowest(ROW), bound, policy)[0].tolist()
        for i in range(decided):
            recorded = record["trace"]["kind"][at + i]
            match = bool(chain.drafted[0, i] == chain.target[0, i])
            allowed = not bool(evidence.guarded[0, i]) and bool(
                evidence.log_ratio[0, i] >= torch.tensor(relax.floor).log()
            )
            thresholds.append(threshold)
            if match:
                kinds.append(Kind.MATCH)
            elif allowed and likely[i] and float(evidence.relevance[0, i]) <= threshold:
                kinds.append(Kind.LOOSE)
            elif recorded == Kind.SHIFT or (recorded == Kind.LOOSE and bool(shift[i])):
                kinds.append(Kind.SHIFT)
            else:
                kinds.append(Kind.TARGET)
        if count > decided:
            thresholds.append(None)
            kinds.append(Kind.BONUS)
        at += count
        settle(chain, count, reference)
    return thresholds, kinds


@pytest.mark.parametrize(
    ("relax", "reference"),
    [
        (RELAXED, []),
        (RELAXED, [place / 64 for place in range(64)]),
        (RISING, []),
        (RISING, [place / 64 for place in range(64)]),
        (RelaxConfig(loose_ratio=0.7), []),
        (RelaxConfig(draft_shift=3), []),
    ],
)
def test_the_rule_in_javascript_is_the_rule(
    browser: Browser, tmp_path: Path, relax: RelaxConfig, reference: list[float]
) -> None:
    record, chains = simulate(relax, 24, 5, reference)
    show(browser, tmp_path, record)
    assert len(record["trace"]["kind"]) > 64
    for ratio in RATIOS:
        thresholds, kinds = expected(record, chains, ratio)
        found = browser.evaluate(
            f"(({{thresholds, kinds}}) => ({{kinds, thresholds: thresholds.map("
            f"(t) => t === -Infinity ? 'none' : t)}}))(replay(record, {ratio}))"
        )
        assert found["kinds"] == kinds
        assert found["thresholds"] == [
            "none" if t is not None and math.isinf(t) else t for t in thresholds
        ]
    at_recorded, _ = expected(record, chains, relax.loose_ratio)
    recorded = record["trace"]["threshold"]
    assert [None if t is None or math.isinf(t) else t for t in at_recorded] == recorded
    assert browser.evaluate("replay(record, record.relax.loose_ratio).kinds") == [
        int(kind) for kind in record["trace"]["kind"]
    ]


def test_rounds_are_those_that_ran(browser: Browser, tmp_path: Path) -> None:
    record, chains = simulate(RELAXED, rounds=12, seed=2)
    show(browser, tmp_path, record)
    rounds = browser.evaluate("roundsOf(record.trace)")
    assert len(rounds) == len(chains)
    assert [stop for _, stop in rounds[:-1]] == [start for start, _ in rounds[1:]]
    assert browser.evaluate("document.querySelectorAll('#rounds li').length") == len(chains)


def test_the_page_works_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    record, _ = simulate(RELAXED, rounds=12, seed=2)
    show(browser, tmp_path, record)

    def focus() -> str:
        return str(browser.evaluate("document.activeElement.id || document.activeElement.role"))

    stops = []
    for _ in range(4):
        browser.press("Tab")
        stops.append(focus())
    assert stops == ["ratio", "reset", "plot", "option"]
    browser.evaluate("document.getElementById('ratio').focus()")
    before = browser.evaluate("document.getElementById('outcome').textContent")
    for _ in range(45):
        browser.press("ArrowLeft")
    assert browser.evaluate("document.getElementById('ratio-value').textContent") == "0.05"
    assert browser.evaluate("document.getElementById('outcome').textContent") != before

    browser.evaluate("choose(0)")
    browser.press("ArrowRight")
    assert browser.evaluate("chosen") == 1
    browser.press("ArrowDown")
    assert browser.evaluate("chosen") == browser.evaluate("rounds[1][0]")
    browser.press("ArrowUp")
    browser.press("c")
    assert browser.evaluate("changes(trace.kind[chosen], now.kinds[chosen])")
    assert "would be refused" in browser.evaluate("document.activeElement.ariaLabel")
    browser.press("Home")
    browser.press("d")
    assert browser.evaluate("isDifferent.has(chosen)")
    browser.press("End")
    assert browser.evaluate("chosen") == len(record["trace"]["kind"]) - 1
    assert focus() == "option"


def luminance(colour: list[float]) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_both_colour_schemes_are_readable(browser: Browser, tmp_path: Path, dark: bool) -> None:
    record, _ = simulate(RELAXED, rounds=12, seed=2)
    show(browser, tmp_path, record, dark=dark)
    names = "card ink soft match loose shift target bonus".split()
    colours = browser.evaluate(
        f"{names}.map((name) => {{ const probe = document.createElement('canvas')"
        ".getContext('2d'); probe.fillStyle = getComputedStyle(document.documentElement)"
        ".getPropertyValue('--' + name); probe.fillRect(0, 0, 1, 1);"
        "return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255) })"
    )
    card, ink, soft, *kinds = colours
    assert (luminance(card) < 0.1) == dark
    assert contrast(card, soft) > 4.5
    assert all(contrast(card, kind) > 3 for kind in kinds)
    # Text on the deepest shade of any kind.
    for kind in kinds:
        wash = 0.46 if dark else 0.4
        shaded = [wash * k + (1 - wash) * c for k, c in zip(kind, card, strict=True)]
        assert contrast(shaded, ink) > 4.5
    # Not by colour alone: every kind has a line or a sign of its own.
    looks = browser.evaluate(
        "[0, 1, 2, 3, 4].map((k) => { const style = getComputedStyle(document.querySelector("
        "`#legend .k${k}`)); return style.borderBottomStyle + style.borderBottomWidth })"
    )
    assert len(set(looks)) == 5
    for one, other in itertools.combinations(kinds, 2):
        assert one != other


def test_nothing_is_fetched_and_nothing_fails(browser: Browser, tmp_path: Path) -> None:
    strict, _ = simulate(RelaxConfig(), rounds=3, seed=1)
    for key in ("relevance", "threshold", "log_ratio", "guarded"):
        strict["trace"][key] = [None] * len(strict["trace"]["kind"])
    fly, _ = simulate(RELAXED, rounds=3, seed=1)
    fly["relax"]["rule"] = "fly"
    for record in (strict, fly):
        show(browser, tmp_path, record)
        assert browser.evaluate("document.getElementById('ratio').disabled")
    show(browser, tmp_path, simulate(RELAXED, rounds=3, seed=1)[0])
    assert not browser.evaluate("document.getElementById('ratio').disabled")
    assert browser.evaluate("document.querySelector('h1').textContent").endswith("this video?")
    assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests)
    assert browser.errors == []
