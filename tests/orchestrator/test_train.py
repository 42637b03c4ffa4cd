"""Real Ray Train: a run, its kill -9 of a worker, of its driver, its resume, its record.

One run costs about 20 s here, most of it Ray's start; the uninterrupted run is made once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient

from orchestrator.checkpoint import Checkpoints
from orchestrator.config import run_name
from orchestrator.experiments import resolve
from orchestrator.ledger import read_ledger
from orchestrator.tracking import find_run
from shards.manifest import load_manifest
from shards.storage import LocalStore

STEPS = 24
ASSIGNMENTS = [
    "data.name=squares",
    "data.global_batch=5",
    "data.ledger=true",
    "data.block_shards=2",
    "model.width=2",
    f"budget.steps={STEPS}",
    "budget.checkpoint_every=4",
    "budget.samples_every=12",
    "budget.samples=4",
    "budget.log_every=1",
    "resources.use_gpu=false",
    "resources.cpus_per_worker=1",
    "resources.threads=1",
]
pytestmark = pytest.mark.timeout(300)


def command(workers):
    name = ["-m", "orchestrator.run", "vgan_golf", *ASSIGNMENTS]
    return [sys.executable, *name, f"resources.num_workers={workers}", "--json"]


def start(site, workers, runs):
    environment = os.environ | {"SHARDS_ROOT": str(site / "shards"), "RUNS_ROOT": str(site / runs)}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{site}/{runs}.db"
    log = (site / f"{runs}.log").open("ab")
    return subprocess.Popen(
        command(workers), env=environment, stdout=log, stderr=log, cwd=Path.cwd()
    )


def finish(process, site, runs, timeout_s=200):
    code = process.wait(timeout_s)
    assert code == 0, (site / f"{runs}.log").read_text()[-4000:]
    name = run_name(resolve("vgan_golf", None, ASSIGNMENTS), _version(site))
    return LocalStore(str(site / runs / name))


def _version(site):
    return load_manifest(LocalStore(str(site / "shards/squares"))).version


def wait_for_checkpoint(site, runs, process, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if list((site / runs).glob("*/checkpoints/*/manifest.json")):
            return
        assert process.poll() is None, (site / f"{runs}.log").read_text()[-4000:]
        time.sleep(0.05)
    raise AssertionError("no checkpoint in time")


def workers_of(process):
    children = psutil.Process(process.pid).children(recursive=True)
    return [c for c in children if "RayTrainWorker" in " ".join(c.cmdline())]


def result(store):
    """(final weights, [the keys of every step], attempts)."""
    weights = Checkpoints(store, keep=2).load(STEPS).state["learner"]
    steps = read_ledger(store)
    assert [step for step, _ in steps] == list(range(STEPS))
    attempts = [name for name, _ in store.list("attempts/")]
    return weights, [keys for _, keys in steps], len(attempts)


def assert_equal(weights, others):
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.fixture(scope="module")
def site(tmp_path_factory, make_dataset):
    folder = tmp_path_factory.mktemp("site")
    make_dataset(folder / "shards" / "squares")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(site):
    return result(finish(start(site, 1, "straight"), site, "straight"))


def test_run_worker_killed_consumes_the_same_keys_and_ends_bit_for_bit_equal(site, uninterrupted):
    process = start(site, 1, "worker-killed")
    wait_for_checkpoint(site, "worker-killed", process)
    for worker in workers_of(process):
        worker.send_signal(signal.SIGKILL)
    weights, keys, attempts = result(finish(process, site, "worker-killed"))
    assert attempts == 2
    assert keys == uninterrupted[1]
    assert_equal(weights, uninterrupted[0])


def test_run_driver_killed_resumes_by_the_same_command_bit_for_bit_equal(site, uninterrupted):
    process = start(site, 1, "driver-killed")
    wait_for_checkpoint(site, "driver-killed", process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    for left in psutil.wait_procs(children, timeout=20)[1]:
        left.kill()  # Ray's agents notice their raylet's death only after a while
    store = finish(start(site, 1, "driver-killed"), site, "driver-killed")
    weights, keys, attempts = result(store)
    assert attempts == 2
    assert keys == uninterrupted[1]
    assert_equal(weights, uninterrupted[0])


def test_run_of_two_workers_consumes_the_same_keys_and_leaves_its_whole_record(
    site, uninterrupted, tmp_path
):
    store = finish(start(site, 2, "two"), site, "two")
    weights, keys, attempts = result(store)
    assert attempts == 1
    assert keys == uninterrupted[1]
    assert weights.keys() == uninterrupted[0].keys()
    client = MlflowClient(f"sqlite:///{site}/two.db")
    run = find_run(client, Path(store.location).name)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.width"] == "2"
    assert run.data.tags["config.resources.num_workers"] == "2"
    assert run.data.tags["orchestrator.paper"].startswith("VGAN 3.2")
    assert run.inputs.dataset_inputs[0].dataset.name == "squares"
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/d_loss")]
    assert steps == list(range(1, STEPS + 1))
    assert {"data/wait_s", "sys/clips_per_s", "goodput/compute_fraction"} <= run.data.metrics.keys()
    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    for name in ("samples", "streams"):
        made = sorted(p.name for p in (folder / name).iterdir())
        assert made == [f"step-{s:08d}.{e}" for s in (12, 24) for e in ("gif", "png")]
    assert {p.name for p in (folder / "real").iterdir()} == {"clips.gif", "clips.png"}
    assert json.loads((folder / "experiment.json").read_text())["model"]["width"] == 2
    version = client.get_model_version("vgan_golf", "1")
    assert version.run_id == run.info.run_id
    clips = _load_and_predict(folder / "model", tmp_path)
    assert clips == [[2, 32, 64, 64, 3], "uint8", True]


def _load_and_predict(model, folder):
    """Loads the logged model in a process that cannot import the project, and predicts twice."""
    code = (
        "import json, sys, mlflow.pyfunc, pandas, numpy; "
        "model = mlflow.pyfunc.load_model(sys.argv[1]); "
        "ask = pandas.DataFrame({'seed': numpy.array([3, 4])}); "
        "one, two = model.predict(ask), model.predict(ask); "
        "assert 'orchestrator' not in sys.modules; "
        "print(json.dumps([list(one.shape), str(one.dtype), bool((one == two).all())]))"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(model)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(out.stdout.splitlines()[-1])


def test_run_finished_says_so_and_exits_0(site, uninterrupted):
    process = start(site, 1, "straight")
    assert process.wait(120) == 0
    assert "is finished; --fresh starts another" in (site / "straight.log").read_text()
    assert len(list((site / "straight").glob("*/attempts/*"))) == 1
