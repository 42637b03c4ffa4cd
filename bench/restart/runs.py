"""The two kinds of run that bench/recovery.py breaks, and what they say of themselves."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.cluster import Cluster  # noqa: E402
from tests.faults.command import Run  # noqa: E402

WIDTH, BATCH = 8, 4
ENDLESS = 1_000_000
MODEL = [
    f"model.width={WIDTH}",
    f"data.global_batch={BATCH}",
    f"budget.samples_every={ENDLESS}",
    "data.ledger=false",
]


class Ours(Run):
    """The orchestrator's run, asked for steps done."""

    def __init__(self, site: Path, name: str, *, every: int, steps: int = ENDLESS, **options: Any):
        budget = [f"budget.steps={steps}", f"budget.checkpoint_every={every}"]
        super().__init__(site, name, extra=[*MODEL, *budget], **options)

    def done_since(self, at: float) -> list[tuple[int, float]]:
        """[(step, when it was done)] of the steps whose checkpoints were written since `at`."""
        manifests = self.folder.glob("*/checkpoints/*/manifest.json")
        times = []
        for path in manifests:
            try:
                times.append((int(path.parent.name), path.stat().st_mtime))
            except FileNotFoundError:  # an old one, deleted just now
                continue
        return sorted((step, when) for step, when in times if when > at)

    def told(self) -> list[tuple[int, float]]:
        """[(step, when it was done for the first time)], as MLflow is told."""
        paths = self.folder.glob("*/outbox/rank0.jsonl")
        lines = [line for path in paths for line in path.read_text().splitlines()]
        records = [json.loads(line) for line in lines if line.endswith("}")]
        return [(r["step"], r["ms"] / 1000) for r in records if r["kind"] == "metrics"]

    def lost(self) -> list[int]:
        """[steps of the first attempt that the second does again], once there is a second."""
        store = self.store
        began = [json.loads(store.read(name)) for name, _ in store.list("attempts/")]
        if len(began) < 2:
            return []
        done = [step for step, at in self.told() if at < began[1]["time"]]
        return [max(done) - began[1]["first_step"]]


class Bare(Run):
    """Bare Ray Train, asked for the same."""

    def __init__(self, site: Path, name: str, *, every: int, workers: str = "1", **options: Any):
        super().__init__(site, name, workers=workers, **options)
        self._every = every

    @property
    def command(self) -> list[str]:
        self.folder.mkdir(exist_ok=True)
        sizes = {"steps": ENDLESS, "every": self._every, "batch": BATCH, "width": WIDTH}
        options = [f"--{name}={value}" for name, value in sizes.items()]
        script = str(ROOT / "bench" / "peers" / "ray_train.py")
        return [
            sys.executable,
            script,
            str(self.folder),
            *options,
            f"--workers={self.workers_asked}",
        ]

    def lines(self) -> list[dict[str, Any]]:
        """Every step done, whoever did it."""
        path = self.folder / "steps.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def done_since(self, at: float) -> list[tuple[int, float]]:
        """[(step, when it was done)] since `at`, in order."""
        return [(line["step"], line["at"]) for line in self.lines() if line["at"] > at]

    def lost(self) -> list[int]:
        """[steps of the first attempt that the second does again], once there is a second."""
        lines = self.lines()
        later = [line["step"] for line in lines if line["pid"] != lines[0]["pid"]]
        first = [line["step"] for line in lines if line["pid"] == lines[0]["pid"]]
        return [first[-1] - (later[0] - 1)] if later else []


def wait(run: Run, good: Any, what: str, timeout_s: float = 240) -> Any:
    """The first truthy `good()`."""
    deadline = time.monotonic() + timeout_s
    while not (found := good()):
        if run.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{run.name}: no {what}\n{run.text[-4000:]}")
        time.sleep(0.02)
    return found


def wait_for_steps(run: Any) -> None:
    """Waits until three steps are done from now on."""
    began = time.time()
    wait(run, lambda: len(run.done_since(began)) >= 3, "steps")


def seconds_back(run: Any, killed_at: float) -> float:
    """Seconds from a kill to the first step done after it."""
    # A step that was being written when the kill came is none done again.
    return float(wait(run, lambda: run.done_since(killed_at + 1.0), "step")[0][1] - killed_at)


def kill_workers(run: Run, root: int | None = None) -> float:
    """SIGKILL to every worker of a run; when."""
    workers = wait(run, lambda: run.workers(root), "worker")
    at = time.time()
    for worker in workers:
        worker.kill()
    return at


class Site:
    """A cluster of a head and two nodes of one CPU each, and a run on it; the run has both."""

    def __init__(self, site: Path, kind: Any, name: str, *, every: int) -> None:
        self._folder = Path(tempfile.mkdtemp())
        self.cluster = Cluster(self._folder)
        self.run = kind(
            site,
            name,
            every=every,
            workers="1..2",
            environment=dict(self.cluster.environment),
            inside=self.cluster.inside,
        )

    def __enter__(self) -> Site:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        self.cluster.head()
        self.cluster.node("one")
        self.cluster.wait_for(2)
        others = self._ids()
        self.cluster.node("two")
        self.cluster.wait_for(3)
        (self.two,) = self._ids() - others
        self.run.environment["RAY_ADDRESS"] = self.cluster.address
        self.run.forget().start()
        wait_for_steps(self.run)

    def __exit__(self, *_: object) -> None:
        self.run.end()
        self.cluster.close()
        shutil.rmtree(self._folder)

    def _ids(self) -> set[str]:
        return {node["node_id"] for node in self.cluster.nodes()}

    def lose_a_node(self) -> float:
        """SIGKILL to all of a node; when."""
        at = time.time()
        self.cluster.kill("two")
        return at
