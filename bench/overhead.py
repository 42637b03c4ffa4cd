"""What the orchestrator costs a step, against plain PyTorch, in turns, in one run.

`python bench/overhead.py`. Laptop-scale two-stream VGAN on the CPU, a thread a worker. Bare: a loop
in one file over clips that lie decoded in memory, alone and as two workers of torchrun
(`step/bare.py`). Ours: `python -m orchestrator.run` with everything it does: Ray Train, shards read
and decoded, checkpoints, tracking. Seconds a step are medians over windows of 10 steps; the first
window of each is left out. On a machine that does other work go by the CPU seconds of the thread
that trains: wall seconds are then of whoever else was there. Our workers keep the memory that they
free, so a bare loop that does so too stands beside. Then: whose CPU seconds a run's are, what it
waits for data, and what feeding one H200 takes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step.processes import Threads, spent, threads_of

from models.vgan import VganConfig
from orchestrator.config import Data
from orchestrator.cost import step_cost
from orchestrator.hardware import ASSUMED_MFU, find_machine
from orchestrator.train import KEEP_FREED_MEMORY

WIDTH, BATCH, WINDOW, WINDOWS, ROUNDS = 16, 16, 10, 5, 2
HERE = Path(__file__).parent
RESULT = HERE / "results" / "overhead.json"
Figures = dict[str, Any]


def bare(dataset: Path, *, workers: int = 1, environment: dict[str, str] | None = None) -> Figures:
    """A plain loop's windows."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    command = [sys.executable, *(launcher if workers > 1 else [])]
    shape = [str(n) for n in (WIDTH, BATCH, WINDOW, WINDOWS)]
    done = subprocess.run(
        [*command, str(HERE / "step" / "bare.py"), str(dataset), *shape],
        env=os.environ | {"OMP_NUM_THREADS": "1", **(environment or {})},
        check=True,
        capture_output=True,
        text=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def ours(dataset: Path, *, workers: int) -> Figures:
    """The same of a run of the orchestrator, as it tells MLflow; and whose CPU seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        site = {"SHARDS_ROOT": str(dataset.parent), "RUNS_ROOT": folder, "MLFLOW_TRACKING_URI": uri}
        assignments = [
            f"data.name={dataset.name}",
            f"data.global_batch={BATCH}",
            f"model.width={WIDTH}",
            f"budget.steps={WINDOW * WINDOWS}",
            f"budget.samples_every={WINDOW * WINDOWS}",
            f"budget.checkpoint_every={WINDOW * 2}",
            f"resources.num_workers={workers}",
        ]
        command = [sys.executable, "-m", "orchestrator.run", "vgan_unfiltered", *assignments]
        run = subprocess.Popen(
            [*command, "--scale", "laptop"],
            env=os.environ | site,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        first, last = (_at(run, Path(folder), step) for step in (WINDOW, WINDOW * (WINDOWS - 1)))
        if run.wait():
            raise RuntimeError(f"the run ended with status {run.returncode}: {command}")
        told = [record["values"] for record in _told(Path(folder))[1:]]
    steps = last[0] - first[0]
    return {
        "wall_s": [values["sys/step_s"] for values in told],
        "wait_s": [values["data/wait_s"] for values in told],
        "by_part": spent(first[1], last[1], steps),
        "workers": workers,
    }


def _at(run: subprocess.Popen[bytes], folder: Path, step: int) -> tuple[int, Threads]:
    """(steps done, CPU seconds of all threads) as soon as `step` steps are."""
    while run.poll() is None:
        done = max((record["step"] for record in _told(folder)), default=0)
        if done >= step:
            return done, threads_of(run.pid)
        time.sleep(0.2)
    raise RuntimeError(f"the run ended with status {run.returncode} before step {step}")


def _told(folder: Path) -> list[dict[str, Any]]:
    """The metrics that rank 0 has told so far, a record a window."""
    for path in folder.glob("*/outbox/rank0.jsonl"):
        records = map(json.loads, path.read_text().rpartition("\n")[0].splitlines())
        return [record for record in records if record["kind"] == "metrics"]
    return []


def merged(rounds: list[Figures]) -> Figures:
    """Medians over the windows, or rounds, of all rounds."""
    out: Figures = {}
    for key in rounds[0]:
        if key == "by_part":
            out[key] = merged([each[key] for each in rounds])
        else:
            values = [each[key] for each in rounds]
            flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
            out[key] = statistics.median(flat)
    return out


def feeding(seconds: Figures) -> Figures:
    """What one H200 takes of clips, and the cores that decode them: arithmetic."""
    reader = json.loads((HERE / "results" / "reader.json").read_text())
    measured = HERE / "results" / "gpu_step.json"
    if measured.exists():
        clips_per_s = json.loads(measured.read_text())["best"]["clips_per_s"]
        source = "measured, bench/gpu_step.py"
    else:
        config = VganConfig()
        peak = find_machine("8xh200").peak_tflops["bf16"]
        flops = step_cost(config.build, config.clip_shape).flops
        clips_per_s = peak * 1e12 * ASSUMED_MFU / flops
        source = f"assumed: {ASSUMED_MFU} of {peak:g} TFLOP/s, {flops / 1e9:.1f} GFLOP a clip"
    cores = {
        name: clips_per_s * reader[f"{kind} warm ours"]["cpu_ms_per_clip"] / 1e3
        for name, kind in (("JPEG", "jpg"), ("decoded, from the node's cache", "u8"))
    }
    threads = Data(name="any").reader_threads
    share = seconds["wait_s"] / seconds["wall_s"]
    print(f"\nwait for data: {share:.2%} of a step at laptop scale, one worker")
    print(f"one H200 takes {clips_per_s:,.0f} clips/s ({source});")
    for name, count in cores.items():
        waits = max(0.0, 1 - threads / count)
        print(
            f"  the reader needs {count:.1f} cores for that, {name}; p5en.48xlarge has 24 a GPU; "
            f"with data.reader_threads={threads} a step waits {waits:.0%} of its time"
        )
    return {"wait_share": share, "h200_clips_per_s": clips_per_s, "source": source, "cores": cores}


def show(found: dict[str, Figures]) -> dict[str, Figures]:
    """Prints the tables; the ratios of throughput."""
    print(f"{'':20}{'s a step':>9}{'clips/s':>9}{'CPU s a worker':>16}")
    for name, row in found.items():
        if "by_part" in row:
            row["cpu_s"] = row["by_part"]["training threads"] / row["workers"]
        cpu_s = row["cpu_s"]
        print(f"{name:20}{row['wall_s']:>9.4f}{BATCH / row['wall_s']:>9.1f}{cpu_s:>16.4f}")
    pairs = (
        ("ours", "bare"),
        ("ours", "bare, memory kept"),
        ("ours, 2 workers", "bare DDP, 2 workers"),
    )
    ratios = {
        f"{one} / {other}": {
            key: found[other][key] / found[one][key] for key in ("wall_s", "cpu_s")
        }
        for one, other in pairs
    }
    for name, ratio in ratios.items():
        print(f"throughput, {name}: {ratio['wall_s']:.3f}; by CPU seconds {ratio['cpu_s']:.3f}")
    print("\nCPU ms a step of a run, by whose they are, with 1 worker and with 2:")
    parts = [found[name]["by_part"] for name in ("ours", "ours, 2 workers")]
    for part in parts[0]:
        print(f"  {part:32}" + "".join(f"{each.get(part, 0.0) * 1e3:>8.1f}" for each in parts))
    return ratios


def main() -> None:
    """Measures, prints the tables and writes the JSON."""
    dataset = Path(os.environ.get("SHARDS_ROOT", "var/shards")).absolute() / "demo"
    if not dataset.exists():
        subprocess.run([sys.executable, "-m", "shards.demo", str(dataset)], check=True)
    ways: dict[str, Callable[[], Figures]] = {
        "bare": lambda: bare(dataset),
        "bare, memory kept": lambda: bare(dataset, environment=KEEP_FREED_MEMORY),
        "ours": lambda: ours(dataset, workers=1),
        "bare DDP, 2 workers": lambda: bare(dataset, workers=2),
        "ours, 2 workers": lambda: ours(dataset, workers=2),
    }
    load = os.getloadavg()[0]
    print(f"load average {load:.1f} on {os.cpu_count()} CPUs before the start")
    rounds: dict[str, list[Figures]] = {name: [] for name in ways}
    for _ in range(ROUNDS):  # in turn, so that a busy minute hits all alike
        for name, way in ways.items():
            rounds[name].append(way())
    found = {name: merged(each) for name, each in rounds.items()}
    ratios = show(found)
    RESULT.parent.mkdir(exist_ok=True)
    table = {
        "load_average": load,
        **found,
        "throughput_ratios": ratios,
        "feeding": feeding(found["ours"]),
    }
    RESULT.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
