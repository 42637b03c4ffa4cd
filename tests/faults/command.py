"""A run as its user starts it, and the means to break it at a moment that a seed decides."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil
import torch

from orchestrator.checkpoint import Checkpoints
from orchestrator.config import run_name
from orchestrator.experiments import resolve
from orchestrator.ledger import read_ledger
from shards.manifest import load_manifest
from shards.storage import LocalStore, open_store

PATIENCE_S = 400  # on a busy machine
STEPS = 64
EVERY = 4
ASSIGNMENTS = [
    "data.name=squares",
    "data.global_batch=5",
    "data.ledger=true",
    "data.block_shards=2",
    "model.width=2",
    f"budget.steps={STEPS}",
    f"budget.checkpoint_every={EVERY}",
    "budget.samples_every=32",
    "budget.samples=4",
    "budget.log_every=1",
    "resources.use_gpu=false",
    "resources.cpus_per_worker=1",
    "resources.threads=1",
]
LATEST = 24  # the checkpoint after which a moment is at the latest: 40 steps are left to break


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves: final weights, every step's keys, its attempts, its store."""

    weights: dict
    keys: list
    attempts: list
    store: object

    def assert_same(self, other, *, weights=True):
        assert self.keys == other.keys
        if weights:
            assert all(
                torch.equal(self.weights[name], other.weights[name]) for name in other.weights
            )

    def chunks_after_the_second_began(self):
        """How often the first attempt's worker wrote its keys, before a checkpoint, beyond where
        the second attempt began."""
        names = [name.rpartition("/")[2] for name, _ in self.store.list("ledger/0001/")]
        return sum(int(name[:8]) >= self.attempts[1]["first_step"] for name in names)

    def distance(self, other):
        """The largest difference of any weight or batch statistic."""
        return max(
            float((self.weights[name].double() - value).abs().max())
            for name, value in other.weights.items()
        )


class Run:
    """One run, started as often as it takes, below `site/NAME`.

    inside: what comes before the command, such as `ip netns exec`. note: takes (name, value) of
    what was done to the run, for the record of the test.
    """

    def __init__(
        self, site, name, *, workers="1", extra=(), environment=None, inside=(), note=None
    ):
        self.site, self.name = site, name
        self.folder = site / name
        self.log = site / f"{name}.log"
        self.workers_asked = workers
        self.assignments = [*ASSIGNMENTS, *extra]
        self.environment = environment or {}
        self.inside = inside
        self.process = None
        self.look_every_s = 0.02  # while something is waited for
        self._started = []
        self._note = note or (lambda _: None)

    @property
    def settings(self):
        """The environment variables that say where the run reads and writes."""
        return {
            "SHARDS_ROOT": str(self.site / "shards"),
            "SHARDS_CACHE": str(self.folder / "cache"),
            "RUNS_ROOT": str(self.folder),
            "MLFLOW_TRACKING_URI": self.mlflow,
            **self.environment,
        }

    @property
    def command(self):
        module = [sys.executable, "-m", "orchestrator.run", "vgan_golf"]
        workers = f"resources.num_workers={self.workers_asked}"
        return [*module, *self.assignments, workers, "--json"]

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, *self.command],
                env=os.environ | self.settings,
                stdout=log,
                stderr=log,
            )
        self._started.append(self.process)
        return self

    def end(self):
        """Ends what a test that failed has left running."""
        for process in self._started:
            if process.poll() is None:
                self._kill(process)

    def forget(self):
        """As if it had never been started."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in (self.log, self.site / f"{self.name}.db"):
            path.unlink(missing_ok=True)
        return self

    @property
    def mlflow(self):
        return f"sqlite:///{self.site}/{self.name}.db"

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    @property
    def store(self):
        """The store of the run's own folder."""
        version = load_manifest(LocalStore(str(self.site / "shards/squares"))).version
        name = run_name(resolve("vgan_golf", None, self.assignments), version)
        return open_store(f"{self.settings['RUNS_ROOT']}/{name}")

    def wait(self, timeout_s=PATIENCE_S):
        return self.process.wait(timeout_s)

    def finish(self):
        assert self.wait() == 0, self.text[-6000:]
        return self.outcome()

    def outcome(self):
        """What the finished run left."""
        store = self.store
        steps = read_ledger(store)
        assert [step for step, _ in steps] == list(range(STEPS))
        return Outcome(
            weights=Checkpoints(store, keep=2).load(STEPS).state["learner"],
            keys=[keys for _, keys in steps],
            attempts=[json.loads(store.read(n)) for n, _ in store.list("attempts/")],
            store=store,
        )

    def wait_for(self, good, what, timeout_s=PATIENCE_S):
        """Waits until `good()`, as long as the command runs."""
        deadline = time.monotonic() + timeout_s
        while not good():
            assert self.is_running(), f"it ended before {what}\n{self.text[-6000:]}"
            assert time.monotonic() < deadline, f"no {what}\n{self.text[-6000:]}"
            time.sleep(self.look_every_s)

    def is_running(self):
        return self.process.poll() is None

    def wait_for_attempt(self, number=1):
        """Waits until the workers of an attempt have begun."""
        store, name = self.store, f"attempts/{number:04d}.json"
        self.wait_for(lambda: list(store.list(name)), name)

    def wait_for_checkpoint(self, step):
        """Waits until a checkpoint of `step`, or a later one, is whole."""
        checkpoints = Checkpoints(self.store, keep=2)
        self.wait_for(lambda: max(checkpoints.steps(), default=0) >= step, f"checkpoint {step}")

    def wait_for_a_moment(self, seed):
        """Waits for a moment between the attempt's begin and LATEST, drawn by the seed."""
        draw = random.Random(f"{self.name.partition('-')[0]}/{seed}")
        step, beyond_s = EVERY * draw.randint(0, LATEST // EVERY), draw.uniform(0, 0.25)
        self.wait_for_attempt()
        if step:
            self.wait_for_checkpoint(step)
        time.sleep(beyond_s)
        self.note("moment", f"step {step} + {beyond_s:.3f} s")

    def wait_for_a_moment_without_checkpoints(self, seed):
        """Waits for a moment in the first second of the first attempt, drawn by the seed."""
        beyond_s = random.Random(f"{self.name.partition('-')[0]}/{seed}").uniform(0, 1)
        self.wait_for_attempt()
        time.sleep(beyond_s)
        self.note("moment", f"start + {beyond_s:.3f} s")

    def steps_lost(self, outcome):
        """How many steps of the first attempt had to be done again by the second."""
        began_ms = outcome.attempts[1]["time"] * 1000
        (told,) = self.folder.glob("*/outbox/rank0.jsonl")
        records = [json.loads(line) for line in told.read_text().splitlines()]
        done = [r["step"] for r in records if r["kind"] == "metrics" and r["ms"] < began_ms]
        lost = max(done, default=0) - outcome.attempts[1]["first_step"]
        self.note("steps lost", lost)
        return lost

    def note(self, name, value):
        """Puts a fact on the test's record."""
        self._note((name, value))

    def workers(self, root=None):
        return self.processes("RayTrainWorker", root)

    def processes(self, name, root=None):
        """Ray's processes of a name, below the driver or the process `root`."""
        found = []
        for child in psutil.Process(root or self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                if name in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def kill_driver(self):
        """SIGKILL, and an end to what Ray leaves of the driver's own cluster."""
        self._kill(self.process)

    def _kill(self, process):
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(30)
        for left in psutil.wait_procs(children, timeout=20)[1]:
            left.kill()  # Ray's agents notice their raylet's death only after a while
