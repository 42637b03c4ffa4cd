"""The bench command reads for real and refuses what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards import bench


def test_bench_reports_the_clips_it_read(make_dataset: Any, capsys: Any) -> None:
    made = make_dataset([30])
    assert bench.main([made.location, "--batch", "8", "--seconds", "0.1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["clips"] >= 8
    assert figures["clips"] % 8 == 0
    assert figures["clips_per_s"] > 0
    assert figures["batch_p50_s"] <= figures["batch_p99_s"]


def test_bench_batch_larger_than_the_dataset_exits_2(make_dataset: Any, capsys: Any) -> None:
    made = make_dataset([3])
    assert bench.main([made.location, "--batch", "8"]) == 2
    assert "fewer clips than one global batch" in capsys.readouterr().err


def test_bench_no_dataset_exits_2(tmp_path: Path) -> None:
    assert bench.main([str(tmp_path)]) == 2
