"""A run as its user starts it, and the means to break it.

A run costs about 20 s on two cores, most of it Ray's start; the uninterrupted one is made once.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil
import pytest
import torch

from orchestrator.checkpoint import Checkpoints
from orchestrator.config import run_name
from orchestrator.experiments import resolve
from orchestrator.ledger import read_ledger
from shards.manifest import load_manifest
from shards.storage import LocalStore

STEPS = 64
ASSIGNMENTS = [
    "data.name=squares",
    "data.global_batch=5",
    "data.ledger=true",
    "data.block_shards=2",
    "model.width=2",
    f"budget.steps={STEPS}",
    "budget.checkpoint_every=4",
    "budget.samples_every=32",
    "budget.samples=4",
    "budget.log_every=1",
    "resources.use_gpu=false",
    "resources.cpus_per_worker=1",
    "resources.threads=1",
]


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves: final weights, every step's keys, its attempts, its store."""

    weights: dict
    keys: list
    attempts: list
    store: LocalStore

    def assert_same(self, other, *, weights=True):
        assert self.keys == other.keys
        if weights:
            assert all(
                torch.equal(self.weights[name], other.weights[name]) for name in other.weights
            )


class Run:
    """One run, started as often as it takes, below `site/NAME`."""

    def __init__(self, site, name, *, workers="1", extra=(), environment=None, inside=()):
        self.site, self.name = site, name
        self.folder = site / name
        self.log = site / f"{name}.log"
        self.assignments = [*ASSIGNMENTS, f"resources.num_workers={workers}", *extra]
        self.environment = environment or {}
        self.inside = inside
        self.process = None

    def start(self):
        environment = os.environ | {
            "SHARDS_ROOT": str(self.site / "shards"),
            "SHARDS_CACHE": str(self.folder / "cache"),
            "RUNS_ROOT": str(self.folder),
            "MLFLOW_TRACKING_URI": self.mlflow,
            **self.environment,
        }
        command = [
            *self.inside,
            sys.executable,
            "-m",
            "orchestrator.run",
            "vgan_golf",
            *self.assignments,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--json"], env=environment, stdout=log, stderr=log
            )
        return self

    @property
    def mlflow(self):
        return f"sqlite:///{self.site}/{self.name}.db"

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def wait(self, timeout_s=240):
        return self.process.wait(timeout_s)

    def finish(self):
        assert self.wait() == 0, self.text[-6000:]
        version = load_manifest(LocalStore(str(self.site / "shards/squares"))).version
        name = run_name(resolve("vgan_golf", None, self.assignments), version)
        store = LocalStore(str(self.folder / name))
        steps = read_ledger(store)
        assert [step for step, _ in steps] == list(range(STEPS))
        return Outcome(
            weights=Checkpoints(store, keep=2).load(STEPS).state["learner"],
            keys=[keys for _, keys in steps],
            attempts=[json.loads(store.read(n)) for n, _ in store.list("attempts/")],
            store=store,
        )

    def wait_for(self, pattern, timeout_s=150):
        """Waits until a file matches `pattern` below the run's folder."""
        deadline = time.monotonic() + timeout_s
        while not list(self.folder.glob(f"*/{pattern}")):
            assert self.process.poll() is None, self.text[-6000:]
            assert time.monotonic() < deadline, f"no {pattern}\n{self.text[-6000:]}"
            time.sleep(0.02)

    def wait_for_a_random_checkpoint(self, seed):
        """Waits for one of the first three checkpoints; which one depends on the seed."""
        step = random.Random(seed).choice([4, 8, 12])
        self.wait_for(f"checkpoints/{step:08d}/manifest.json")

    def workers(self, root=None):
        children = psutil.Process(root or self.process.pid).children(recursive=True)
        return [c for c in children if "RayTrainWorker" in " ".join(c.cmdline())]

    def kill_driver(self):
        """SIGKILL, and an end to what Ray leaves of the driver's own cluster."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        for left in psutil.wait_procs(children, timeout=20)[1]:
            left.kill()  # Ray's agents notice their raylet's death only after a while


@pytest.fixture(scope="session")
def site(tmp_path_factory, make_dataset):
    """The dataset `squares`, and room for runs."""
    folder = tmp_path_factory.mktemp("site")
    make_dataset(folder / "shards" / "squares")
    return folder


@pytest.fixture(scope="session")
def uninterrupted(site):
    """The outcome that every broken run must have."""
    return Run(site, "straight").start().finish()


@pytest.fixture
def run(site, request):
    """Makes a `Run` named after the test."""

    own_name = request.node.name.replace("[", "-").replace("]", "")[5:60]

    def make(name=own_name, **options):
        return Run(site, name, **options)

    return make
