"""What telling MLflow costs the training loop at a logged step: `python bench/step_logging.py`.

Every step is logged: some torch work on one thread, as long as --step-ms, then the reporter is told
of the step, in the thread that trains, while the tracker's thread sends. "tracker" is the time in
`Tracker.metrics`, "reporter" that in `Reporter.on`, of which it is a part: throughput, shares of
the accounts, progress. "others CPU" is what all other threads used a step: the sender, the
machine's load, the accounts. Three places to send to: SQLite in this process, a server, a server
that is not there. MLflow is imported before the first step. Fails where the reporter's median is
over 1 ms. About a minute.
Options: --steps N, --step-ms MS.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from orchestrator.accounts import Accounts, Note
from orchestrator.experiments import resolve
from orchestrator.loop import Loop, Spent, StepsDone, World
from orchestrator.mlflow_runs import client
from orchestrator.reporter import Reporter
from orchestrator.tracking import Tracker
from shards.storage import LocalStore

RESULT = Path(__file__).parent / "results" / "logging.json"
LIMIT_MS = 1.0
TINY = ["model.width=2", "budget.steps=1000000", "resources.num_workers=1"]


class TimedTracker(Tracker):
    """Notes the seconds of every call."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """As it is, with a clock around it."""
        started = time.perf_counter()
        super().metrics(step, values)
        self.seconds.append(time.perf_counter() - started)

    seconds: list[float]


def measure(uri: str, folder: Path, steps: int, step_s: float) -> dict[str, float]:
    """The figures of one place to send to, in ms."""
    experiment = resolve("vgan_unfiltered", "laptop", TINY)
    loop = Loop(
        experiment.model.build(),
        optim=experiment.optim,
        budget=experiment.budget,
        seed=0,
        global_batch=1,
        device=torch.device("cpu"),
        world=World(),
    )
    tracker = TimedTracker(uri=uri, run="r", outbox=folder, writer="rank0", creates="bench")
    tracker.seconds = []
    started = time.time()
    reporter = Reporter(
        experiment=experiment,
        tracker=tracker,
        store=LocalStore(str(folder / "store")),
        loop=loop,
        first_step=0,
        accounts=Accounts(started=started, note=Note(at=started)),
        hosts=["here"],
        flops_per_clip=1,
        peak_tflops=None,
    )
    spent = Spent(compute_s=step_s, collective_s=0.0, data_wait_s=1e-4, device_gib=0.0)
    seconds, matrix = [], torch.randn(256, 256)
    cpu, own = time.process_time(), time.thread_time()
    for step in range(1, steps + 1):
        until = time.perf_counter() + step_s
        while time.perf_counter() < until:
            torch.mm(matrix, matrix)
        losses = dict.fromkeys(("d_loss", "d_real", "d_fake", "g_loss", "mask"), 1.0 / step)
        begin = time.perf_counter()
        reporter.on(StepsDone(step=step, steps=1, metrics=losses, spent=(spent,)))
        seconds.append(time.perf_counter() - begin)
    others = (time.process_time() - cpu) - (time.thread_time() - own)
    reporter.close()
    tracker.close(timeout_s=60)
    return {**named("tracker", tracker.seconds), **named("reporter", seconds)} | {
        "others_cpu_ms": 1e3 * others / steps
    }


def named(name: str, seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, in ms."""
    cuts = statistics.quantiles(seconds, n=100)
    figures = {"median": statistics.median(seconds), "p99": cuts[98], "max": max(seconds)}
    return {f"{name}_{key}_ms": 1e3 * value for key, value in figures.items()}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an MLflow server that lives as long as the block."""
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", uri.rpartition(":")[2], "--artifacts-destination", str(folder / "files")]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not answers(f"{uri}/health"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError((folder / "server.log").read_text()[-2000:])
            time.sleep(0.3)
        yield uri
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    """Whether somebody does, within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Prints the table, writes the JSON; 1 where a median is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--step-ms", type=float, default=20.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        client(f"sqlite:///{folder}/warm.db")
        with server(folder) as up:
            away = f"http://127.0.0.1:{free_port()}"
            places = {"sqlite": f"sqlite:///{folder}/mlflow.db", "server": up, "no server": away}
            for place, uri in places.items():
                table[place] = measure(uri, folder / place, given.steps, given.step_ms / 1e3)
    print(
        f"{'ms':<12}{'tracker':>9}{'p99':>8}{'max':>8}{'reporter':>10}{'p99':>8}{'max':>8}", end=""
    )
    print(f"{'others CPU':>12}")
    for place, row in table.items():
        tracker, reporter = (
            "".join(f"{row[f'{who}_{key}_ms']:8.2f}" for key in ("median", "p99", "max"))
            for who in ("tracker", "reporter")
        )
        print(f"{place:<12} {tracker}  {reporter}{row['others_cpu_ms']:12.2f}")
    about = {"step_ms": given.step_ms, "load_average_at_start": load, "cpus": os.cpu_count()}
    RESULT.write_text(json.dumps(about | table, indent=1) + "\n")
    slow = [place for place, row in table.items() if row["reporter_median_ms"] > LIMIT_MS]
    if slow:
        print(f"FAILED: telling costs over {LIMIT_MS} ms a step: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
