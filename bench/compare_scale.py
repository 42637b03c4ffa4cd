"""How long a comparison of many long runs takes, and how large its page is.

    python bench/compare_scale.py [--runs 1000] [--points 10000] [--folder DIR]

Writes runs and histories straight into MLflow's tables on SQLite (2.6 GB for 1,000 x 10,000), then
times `orchestrator.compare` on them, and MLflow's own ways to the same histories on a few. Where
there is a browser: how long the page takes to load, to sort and to select.
Writes bench/results/compare_scale.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "compare_scale.json"
SWEEP, METRIC, START_MS = "bench-0badcafe", "train/loss", 1_700_000_000_000
SEEDS, FEW = 4, 5


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="for the database; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        database = Path(folder, "mlflow.db")
        found: dict[str, Any] = {"runs": given.runs, "points": given.points, "cpus": os.cpu_count()}
        found["build_s"] = _timed(lambda: build(database, given.runs, given.points))[0]
        found["database_gb"] = round(database.stat().st_size / 1e9, 2)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{database}"
        found |= _of_compare(Path(folder))
        found |= _of_mlflow(database, given.runs)
    print(json.dumps(found, indent=1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


def build(database: Path, runs: int, points: int) -> None:
    """A sweep of `runs` trials, each with one metric of so many points."""
    from mlflow import MlflowClient

    mlflow = MlflowClient(f"sqlite:///{database}")
    experiment = mlflow.create_experiment("bench", artifact_location=f"file://{database}.files")
    base = sqlite3.connect(database)
    base.executescript(
        "pragma journal_mode=off; pragma synchronous=off; drop index index_metrics_run_uuid; "
        "drop index index_metrics_run_uuid_key_step;"
    )
    rng = np.random.default_rng(0)
    finals = rng.uniform(1, 2, runs)
    _run(base, experiment, 0, SWEEP, {"orchestrator.kind": "sweep"}, {"metric": METRIC}, {})
    for n in range(runs):
        params = {f"model.field{k}": str(k) for k in range(40)}
        params |= {"optim.lr": f"{1e-5 * 1.2 ** (n // 40):.3g}", "seed": str(n % SEEDS)}
        params |= {"model.hidden": str(64 * (1 + n // 8 % 5)), "model.strokes": str(4 + n // 4 % 2)}
        tags = {f"config.field{k}": str(k) for k in range(25)} | {"orchestrator.trial": str(n)}
        last = {METRIC: float(finals[n]), "goodput/fraction": 0.9}
        last |= {f"sys/metric{k}": 1.0 for k in range(20)}
        name = f"sync_draw_one_digit-{n:08x}"
        _run(base, experiment, n + 1, name, tags, params, last, last_step=10 * points)
    base.executemany("insert into metrics values (?, ?, ?, ?, ?, 0)", _points(finals, rng, points))
    base.execute("create index index_metrics_run_uuid on metrics (run_uuid)")
    base.execute('create index index_metrics_run_uuid_key_step on metrics (run_uuid, "key", step)')
    base.commit()
    base.close()


def _points(finals: Any, rng: Any, points: int) -> Iterator[tuple[Any, ...]]:
    noise = rng.normal(0, 0.05, points)
    for point in range(points):  # in the order of the table's key
        value = 5 * math.exp(-6 * point / points) + noise[point]
        for n, final in enumerate(finals):
            place = START_MS + 1000 * point, f"{n + 1:032x}", 10 * (point + 1)
            yield METRIC, value + final, *place


def _run(
    base: sqlite3.Connection,
    experiment: str,
    number: int,
    name: str,
    tags: dict[str, str],
    params: dict[str, str],
    metrics: dict[str, float],
    last_step: int = 0,
) -> None:
    run = f"{number:032x}"
    base.execute(
        "insert into runs values "
        "(?, ?, 'UNKNOWN', '', '', 'bench', 'FINISHED', ?, ?, '', 'active', ?, ?, null)",
        (run, name, START_MS, START_MS + 10**7, f"file:///nowhere/{run}", int(experiment)),
    )
    named = {"orchestrator.run": name, "orchestrator.sweep": SWEEP, **tags}
    base.executemany("insert into tags values (?, ?, ?)", [(k, v, run) for k, v in named.items()])
    base.executemany("insert into params values (?, ?, ?)", [(*kv, run) for kv in params.items()])
    rows = [(k, v, START_MS, last_step, run) for k, v in metrics.items()]
    base.executemany("insert into latest_metrics values (?, ?, ?, ?, 0, ?)", rows)


def _of_compare(folder: Path) -> dict[str, Any]:
    from orchestrator import compare

    with contextlib.redirect_stdout(io.StringIO()):
        seconds, status = _timed(lambda: compare.main([SWEEP, "--out", str(folder)]))
    assert status == 0
    html = folder / f"{SWEEP}.html"
    out = {"compare_s": seconds, "html_mb": round(html.stat().st_size / 1e6, 2)}
    return out | _of_browser(html)


def _of_browser(html: Path) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.orchestrator.webdriver import Browser, chromedriver, missing

    if missing():
        return {}
    acts = {"show_all_runs": "#by-run", "sort": "th:nth-child(3) button", "select": "tbody tr"}
    with chromedriver() as address:
        browser = Browser(address, 1400, 1000)
        try:
            browser.open(html.as_uri())
            told = {
                "page_load_ms": browser.run("return window.drawn.then(() => performance.now())")
            }
            for name, selector in acts.items():
                told[f"page_{name}_ms"] = browser.run(
                    "const t = performance.now(); document.querySelector(arguments[0]).click(); "
                    "document.body.offsetHeight; return performance.now() - t",
                    selector,
                )
        finally:
            browser.close()
    return {name: round(value, 1) for name, value in told.items()}


def _of_mlflow(database: Path, runs: int) -> dict[str, Any]:
    """Seconds a run by MLflow's own means, over a few."""
    from mlflow import MlflowClient

    store = MlflowClient(f"sqlite:///{database}")._tracking_client.store
    ids = [f"{n + 1:032x}" for n in range(min(FEW, runs))]
    ways: dict[str, Callable[[], Any]] = {
        "get_metric_history": lambda: [store.get_metric_history(run, METRIC) for run in ids],
        "get_metric_history_bulk_interval": lambda: store.get_metric_history_bulk_interval(
            ids, METRIC, 1000, None, None
        ),
    }
    each = {f"{name}_s_per_run": _timed(ask)[0] / len(ids) for name, ask in ways.items()}
    return {name: round(value, 3) for name, value in each.items()}


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = act()
    return round(time.perf_counter() - started, 2), result


if __name__ == "__main__":
    main()
