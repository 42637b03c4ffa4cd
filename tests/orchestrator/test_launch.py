"""The driver's part that needs no workers: a finished run that MLflow has not heard of."""

import json

from mlflow import MlflowClient

from orchestrator.checkpoint import Checkpoints
from orchestrator.experiments import resolve
from orchestrator.launch import launch
from orchestrator.mlflow_runs import find_run
from orchestrator.outbox import Outbox
from orchestrator.site import Site
from shards.storage import LocalStore


def test_launch_of_a_finished_run_delivers_what_waited_for_mlflow(site, capsys):
    experiment = resolve("vgan_golf", None, ["model.width=2", "data.name=squares"])
    here = Site.from_environment()
    store = LocalStore(here.run("r-1"))
    store.write("result.json", json.dumps({"steps": 3, "metrics": {}}).encode())
    state = {"learner": experiment.model.build().state_dict()}
    Checkpoints(store, keep=2).save(3, state, {})
    Outbox(here.outbox("r-1"), "driver").append({"kind": "status", "status": "FINISHED"})
    metrics = {"kind": "metrics", "step": 3, "ms": 1, "values": {"train/x": 2.0}}
    Outbox(here.outbox("r-1"), "rank0").append(metrics)

    assert launch(experiment, here, "r-1", "v", as_json=False) == 0
    assert "MLflow now has all that waited for it" in capsys.readouterr().out
    client = MlflowClient(here.mlflow_uri)
    run = find_run(client, "r-1")
    assert (run.info.status, run.data.metrics["train/x"]) == ("FINISHED", 2.0)
    assert client.get_model_version("vgan_golf", "1").run_id == run.info.run_id

    assert launch(experiment, here, "r-1", "v", as_json=False) == 0
    assert "waited" not in capsys.readouterr().out
    assert len(client.search_model_versions("name='vgan_golf'")) == 1
