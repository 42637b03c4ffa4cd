"""What a sweep costs beside its trials, and what is left of it: `python bench/sweep.py [PART ...]`.

Eight short trials of two workers, one at a time, on a Ray cluster of this machine that stays up.
`seconds`, by the clock, all trials whole: a shell loop of eight `orchestrator.run`; ours; bare Tune
over bare Train on the same network (bench/peers/ray_tune.py), whose trials take a CPU of their own.
`left`: with ASHA, ours and bare, how many trials came to their end, the seconds after the sweep's
end until no placement group of it is left (60 at most), and how many there were; a sweep that takes
two minutes longer than ours is ended, and what it holds is counted before. `killed`: ours again,
its driver killed at five random moments (fixed seed) and started again by the same command: trials
run twice, steps done twice, MLflow runs beyond one each. A part that is not named keeps its figures
of before.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import write_dataset  # noqa: E402

RESULT = ROOT / "bench" / "results" / "sweep.json"
TRIALS, STEPS, REPORTS, WIDTH, BATCH, KILLS = 8, 24, 12, 8, 4, 5
LAMBDAS = [f"0.{n}" for n in range(1, TRIALS + 1)]
GIVEN = [
    "data.name=squares",
    f"data.global_batch={BATCH}",
    "data.block_shards=2",
    f"model.width={WIDTH}",
    f"budget.steps={STEPS}",
    "budget.log_every=2",
    f"budget.checkpoint_every={STEPS // REPORTS}",  # as often as the peer
    "budget.samples=4",
    "resources.use_gpu=false",
    "resources.cpus_per_worker=1",
    "resources.threads=1",
    "resources.num_workers=2",
]
PORT = 26379
_GROUPS = """
import ray
from ray.util import placement_group_table
ray.init(log_to_driver=False, logging_level="ERROR")
used = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
print(len(used))
"""


class Cluster:
    """A head of this machine with three CPUs, and a site below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_dataset(folder / "shards" / "squares")
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_ADDRESS": f"127.0.0.1:{PORT}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "SHARDS_ROOT": str(folder / "shards"),
        }

    def __enter__(self) -> Cluster:
        start = f"{Path(sys.executable).parent}/ray start --head --block --num-cpus 3 --num-gpus 0"
        options = f"--port {PORT} --node-ip-address 127.0.0.1 --dashboard-port {PORT + 1}"
        options += f" --temp-dir {self.folder}/ray"
        without = {k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"}
        with (self.folder / "head.log").open("wb") as log:
            self._head = subprocess.Popen(
                f"{start} {options}".split(), env=without, stdout=log, stderr=log
            )
        while self.groups() is None:
            time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        _kill(self._head)

    def groups(self) -> int | None:
        """How many placement groups there are; None where no cluster answers."""
        told = subprocess.run(
            [sys.executable, "-c", _GROUPS], env=self.environment, capture_output=True, text=True
        )
        return int(told.stdout) if told.returncode == 0 else None

    def start(self, site: str, *command: str) -> subprocess.Popen[bytes]:
        """A command with runs and MLflow of its own."""
        place = self.folder / site
        place.mkdir(exist_ok=True)
        own = {"RUNS_ROOT": str(place), "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db"}
        with (place / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *command], env=self.environment | own, stdout=log, stderr=log
            )

    def run(self, site: str, *command: str) -> float:
        """The seconds that a command takes to its end."""
        began = time.monotonic()
        self.ended(site, self.start(site, *command), None)
        return time.monotonic() - began

    def ended(self, site: str, process: subprocess.Popen[bytes], limit_s: float | None) -> bool:
        """Whether a command comes to its end in so many seconds; it has to end well."""
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        if status != 0:
            raise RuntimeError((self.folder / site / "log").read_text()[-4000:])
        return True


def ours(scheduler: str) -> list[str]:
    """The sweep's command."""
    return [
        *("-m", "orchestrator.sweep", "vgan_lambda", *GIVEN, "--json"),
        f"space.model.mask_lambda={','.join(LAMBDAS)}",
        f"sweep.reports={REPORTS}",
        "sweep.concurrent=1",
        f"sweep.scheduler={scheduler}",
    ]


def bare(folder: Path, *options: str) -> list[str]:
    """The peer's command."""
    sizes = {"trials": TRIALS, "steps": STEPS, "every": STEPS // REPORTS}
    sizes |= {"batch": BATCH, "width": WIDTH, "workers": 2}
    given = [f"--{name}={value}" for name, value in sizes.items()]
    return [str(ROOT / "bench" / "peers" / "ray_tune.py"), str(folder), *given, *options]


def left(cluster: Cluster) -> dict[str, float]:
    """How many placement groups there are now, and the seconds until there are none."""
    began = time.monotonic()
    first = found = cluster.groups()
    while found and time.monotonic() - began < 60:
        found = cluster.groups()
    return {"groups": float(first or 0), "seconds": time.monotonic() - began if first else 0.0}


def killed(cluster: Cluster) -> dict[str, int]:
    """A sweep whose driver is killed KILLS times: what was done more than once."""
    draw, site = random.Random(0), cluster.folder / "killed"
    for _ in range(KILLS):
        process = cluster.start("killed", *ours("none"))
        before = _reports(site)
        wanted = before + draw.randint(1, TRIALS * REPORTS // KILLS)
        while _reports(site) < wanted and process.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1))
        _kill(process)
    cluster.run("killed", *ours("none"))
    trials = _trials(site)
    return {
        "trials": len(trials),
        "finished": sum(trial["state"] == "finished" for trial in trials),
        "run_twice": len(trials) - len({trial["run"] for trial in trials}),
        "restarted": sum(trial["starts"] > 1 for trial in trials),
        "steps_done_twice": sum(_steps_twice(site / trial["run"]) for trial in trials),
        "mlflow_runs_too_many": _mlflow_runs(site) - len(trials) - 1,
    }


def _trials(site: Path) -> list[dict[str, Any]]:
    """The journal of the one sweep there."""
    return [json.loads(path.read_text()) for path in sorted(site.glob("*/trials/*.json"))]


def _reports(site: Path) -> int:
    return len(list(site.glob("*/reports/*.json")))


def _steps_twice(run: Path) -> int:
    """Steps of a run that a later start did again: told by where each start began."""
    began = [json.loads(p.read_text()) for p in sorted((run / "attempts").glob("*.json"))]
    told = [json.loads(line) for line in (run / "outbox/rank0.jsonl").read_text().splitlines()]
    steps = [(r["step"], r["ms"] / 1000) for r in told if r["kind"] == "metrics"]
    out = 0
    for attempt in began[1:]:
        done = max((step for step, at in steps if at < attempt["time"]), default=0)
        out += max(0, done - attempt["first_step"])
    return out


def _mlflow_runs(site: Path) -> int:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{site}/mlflow.db")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(ids))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all below it."""
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        for each in below:
            if each.is_running():
                each.kill()


def seconds(cluster: Cluster) -> dict[str, float]:
    """Of eight whole trials, by kind."""
    loop = ["-m", "orchestrator.run", "vgan_unfiltered", *GIVEN]
    kinds = {
        "bare": [bare(cluster.folder / "bare")],
        "ours": [ours("none")],
        "shell_loop": [[*loop, f"model.mask_lambda={value}"] for value in LAMBDAS],
    }
    out: dict[str, float] = {}
    print(f"{'eight trials':24}{'seconds':>9}{'x bare Tune':>13}")
    for kind, commands in kinds.items():
        out[kind] = sum(cluster.run(kind, *command) for command in commands)
        print(f"{kind:24}{out[kind]:9.1f}{out[kind] / out['bare']:13.2f}", flush=True)
    return out


def left_by_asha(cluster: Cluster) -> dict[str, dict[str, float]]:
    """What a sweep that stops trials leaves, by kind."""
    took = cluster.run("ours-asha", *ours("asha"))
    over = [t for t in _trials(cluster.folder / "ours-asha") if t["state"] != "running"]
    out = {"ours": {"trials": len(over), **left(cluster)}}
    folder = cluster.folder / "bare-asha"
    process = cluster.start("bare-asha", *bare(folder, "--asha"))
    if cluster.ended("bare-asha", process, took + 120):
        rest = left(cluster)
    else:
        rest = {"groups": float(cluster.groups() or 0)}
        _kill(process)
    ends = re.findall(r"(\d+) TERMINATED", (folder / "log").read_text())
    out["bare"] = {"trials": int(ends[-1]) if ends else 0, **rest}
    for kind, found in out.items():
        print(f"{kind}: " + ", ".join(f"{name} {value:g}" for name, value in found.items()))
    return out


PARTS = {"seconds": seconds, "left": left_by_asha, "killed": killed}


def main() -> None:
    """Measures, prints, writes."""
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found |= {"trials": TRIALS, "steps": STEPS, "workers": 2}
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as name, Cluster(Path(name)) as cluster:
            found[part] = PARTS[part](cluster)
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    if "killed" in found:
        print(f"driver killed {KILLS} times:", found["killed"])
        assert found["killed"]["run_twice"] == found["killed"]["mlflow_runs_too_many"] == 0
    if "left" in found:
        assert found["left"]["ours"]["groups"] == 0, "a sweep leaves no placement group"


if __name__ == "__main__":
    main()
