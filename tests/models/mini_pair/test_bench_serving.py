"""SGLang's own serving benchmark on the requests that ``miniworld sample`` writes."""

import json
import subprocess
import sys
from pathlib import Path

from lvspec_sglang.serving import LocalServer


def test_the_benchmark_reads_the_requests_and_all_succeed(
    pair: dict[str, LocalServer], world: Path, tmp_path: Path
) -> None:
    written = (world / "bench_serving.jsonl").read_text().splitlines()
    result = tmp_path / "result.jsonl"
    done = subprocess.run(
        [
            sys.executable, "-m", "sglang.bench_serving", "--backend", "sglang-oai-chat",
            "--base-url", pair["lvspec"].url, "--dataset-name", "openai",
            "--dataset-path", str(world / "bench_serving.jsonl"), "--num-prompts", "8",
            "--max-concurrency", "2", "--output-file", str(result), "--output-details",
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    figures = json.loads(result.read_text())
    assert figures["completed"] == 8 < len(written)
    # The answers' true lengths, not max_tokens: they end by themselves.
    assert figures["total_output_tokens"] < 8 * 100
    assert figures["generated_texts"][0].endswith(".")
