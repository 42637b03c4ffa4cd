"""Two workers as if on two nodes: the load of both machines is in the one run."""

import json
import socket
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mlflow import MlflowClient

from orchestrator import parallel
from orchestrator.experiments import EXPERIMENTS
from orchestrator.mlflow_runs import create_run, find_run
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.tracking import node_of
from orchestrator.worker import Job, work
from shards.dataset import open_dataset


@pytest.mark.parametrize(
    ("hosts", "rank", "node", "speaks"),
    [
        (["a"], 0, None, True),
        (["a", "a"], 1, None, False),
        (["b", "b", "a", "a"], 0, 0, True),
        (["b", "b", "a", "a"], 1, 0, False),
        (["b", "b", "a", "a"], 2, 1, True),
        (["b", "a", "b", "a"], 3, 1, False),
    ],
)
def test_node_of_numbers_nodes_and_lets_the_first_worker_speak(hosts, rank, node, speaks):
    assert node_of(hosts, rank) == (node, speaks)


def _process(rank, folder, job):
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    socket.gethostname = lambda: f"host-{rank}"
    work(job, parallel.world(), torch.device("cpu"))
    dist.destroy_process_group()


@pytest.mark.timeout(240)
def test_system_metrics_of_every_node_are_in_one_run_by_node(tmp_path, make_dataset):
    make_dataset(tmp_path / "shards/squares")
    site = Site(
        shards_root=str(tmp_path / "shards"),
        shards_cache=str(tmp_path / "cache"),
        runs_root=str(tmp_path / "runs"),
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
    small = ["data.name=squares", "data.global_batch=2", "model.width=1", "budget.samples=1"]
    small += ["budget.steps=2", "resources.threads=1", "data.reader_threads=1"]
    job = Job(
        name="r-1",
        experiment=override(EXPERIMENTS["vgan_golf"], [*small, "resources.num_workers=2"]),
        site=site,
        dataset_version=open_dataset(site.dataset("squares")).version,
        git="unknown",
        command_at=time.time(),
        flops_per_clip=1,
    )
    mlflow = MlflowClient(site.mlflow_uri)
    create_run(mlflow, site.mlflow_uri, name="r-1", experiment="vgan")
    mp.start_processes(_process, args=(str(tmp_path), job), nprocs=2, start_method="spawn")
    told = find_run(mlflow, "r-1").data
    system = {name.split("/")[1] for name in told.metrics if name.startswith("system/")}
    assert system == {"node_0", "node_1"}
    assert told.metrics["system/node_1/system_memory_usage_percentage"] > 0
    assert told.tags["orchestrator.nodes"] == "node_0=host-0 node_1=host-1"
    assert json.loads((tmp_path / "runs/r-1/result.json").read_text())["steps"] == 2
