"""The metrics: what they count, and that README and dashboard speak of these and no others."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from lvspec_sglang import counters
from lvspec_sglang.metrics import INFO_KEY, Committed, Scores

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "examples" / "grafana_dashboard.json").read_text())


def names() -> set[str]:
    """The names Prometheus knows the metrics by."""
    ends = {"counter": ("",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {
        metric.full_name(name) + end
        for name, metric in counters.METRICS.items()
        for end in ends[metric.type]
    }


def test_a_round_is_counted_as_it_was_committed() -> None:
    """Of four requests one had ended, one is not drafted, and one was cut off by a stop string."""
    before = counters.snapshot()
    reqs = [SimpleNamespace(customized_info=None) for _ in range(4)]
    committed = Committed(
        kinds=torch.tensor([[0, 3, 3], [3, 3, 3], [0, 1, 3], [0, 0, 4]], dtype=torch.int8),
        drafted=[True, False, True, True],
        readers=[2, 1],
        scores=Scores(
            [False, False, True, True],
            torch.tensor([[4.0, 4.0], [4.0, 4.0], [0.25, 0.25], [0.5, 0.5]]),
            torch.tensor([*[float("-inf")] * 2, 0.5, float("-inf")]),
        ),
    )
    commits = [None, *(SimpleNamespace(token_ids=ids) for ids in ([9], [5, 6, 7], [8]))]
    committed.copy_to_host(torch.clone).consume(SimpleNamespace(reqs=reqs), commits)

    after = counters.snapshot()
    gained = {name: n for name in after if (n := after[name] - before.get(name, 0.0))}
    buckets = {name: n for name, n in gained.items() if "_bucket" in name}
    assert {name: n for name, n in gained.items() if name not in buckets} == {
        'lvspec_tokens_total{kind="match"}': 2,
        'lvspec_tokens_total{kind="loose"}': 1,
        'lvspec_tokens_total{kind="target"}': 2,
        'lvspec_rounds_total{decoding="drafted"}': 2,
        'lvspec_rounds_total{decoding="plain"}': 1,
        "lvspec_drafted_tokens_total": 4,
        "lvspec_accept_length_count": 2,
        "lvspec_accept_length_sum": 4,
        "lvspec_shared_prefix_groups_count": 2,
        "lvspec_shared_prefix_groups_sum": 3,
        "lvspec_relevance_count": 3,
        "lvspec_relevance_sum": 1.0,
        "lvspec_threshold": 0.5,
    }
    assert buckets['lvspec_accept_length_bucket{le="1.0"}'] == 1
    assert [req.customized_info and req.customized_info[INFO_KEY] for req in reqs] == [
        None, [3], [0, 1, 3], [0],
    ]  # fmt: skip


def test_the_readme_has_a_row_for_each_metric() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, metric in counters.METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        row = f"| `{metric.full_name(name)}` | {metric.type} | {labels} | {metric.help} |"
        assert row in readme, row


def test_the_dashboard_asks_for_every_metric_and_no_other() -> None:
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    used = {name for expr in asked for name in re.findall(r"lvspec_\w+", expr)}
    assert used <= names()
    for name, metric in counters.METRICS.items():
        assert any(each.startswith(metric.full_name(name)) for each in used), name


def test_the_dashboard_can_be_imported() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = {"type": "prometheus", "uid": "${" + DASHBOARD["__inputs"][0]["name"] + "}"}
    cells = set()
    for panel in panels:
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        at = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24 and not covered & cells
        cells |= covered


def test_the_process_that_takes_requests_does_not_choose_where_metrics_live() -> None:
    """prometheus_client must not be imported before the host has set its directory."""
    program = (
        "import sys; from lvspec_sglang import patches, plugin; plugin.register();"
        "patches.register(patches.LVSPEC); print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["False"], done.stderr
