"""A node that dies with its disk while MLflow is away: the run's curves are whole nevertheless."""

import json
import os
import signal
import subprocess
import sys

from mlflow import MlflowClient

from orchestrator.mlflow_runs import create_run, find_run
from shards.read import open_dataset

SMALL = ["data.name=squares", "data.global_batch=3", "model.width=1", "budget.samples=1"]
SMALL += ["budget.steps=6", "budget.log_every=1", "budget.checkpoint_every=2"]
SMALL += ["resources.threads=1", "data.reader_threads=1", "resources.use_gpu=false"]

NODE = """
import json, os, signal, sys, time
import torch
from orchestrator.checkpoint import Checkpoints
from orchestrator.experiments import resolve
from orchestrator.loop import World
from orchestrator.site import Site
from orchestrator.worker import Job, work

small, version, dies_after = json.loads(sys.argv[1])
save = Checkpoints.save


def save_and_die(self, step, state, facts):
    save(self, step, state, facts)
    if step == dies_after:
        os.kill(os.getpid(), signal.SIGKILL)


Checkpoints.save = save_and_die
job = Job(
    name="r-1",
    experiment=resolve("vgan_golf", None, small),
    site=Site.from_environment(),
    dataset_version=version,
    git="unknown",
    command_at=time.time(),
    flops_per_clip=1,
)
work(job, World(), torch.device("cpu"))
"""


def test_node_lost_while_mlflow_is_away_leaves_no_gap_and_no_step_twice(
    site, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("RUNS_ROOT", bucket)
    version = open_dataset(f"{site}/shards/squares").version
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def node(name, dies_after, mlflow):
        plan = json.dumps([SMALL, version, dies_after])
        place = {"HOME": str(tmp_path / name), "MLFLOW_TRACKING_URI": mlflow}
        command = [sys.executable, "-c", NODE, plan]
        return subprocess.run(command, env=os.environ | place, timeout=120).returncode

    assert node("a", 4, "http://127.0.0.1:9") == -signal.SIGKILL
    client = MlflowClient(uri)
    create_run(client, uri, name="r-1", experiment="vgan")
    assert node("b", None, uri) == 0
    run = find_run(client, "r-1")
    told = client.get_metric_history(run.info.run_id, "train/d_loss")
    assert [metric.step for metric in told] == [1, 2, 3, 4, 5, 6]
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "real")]
    assert pictures == ["real/clips.gif", "real/clips.png"]
