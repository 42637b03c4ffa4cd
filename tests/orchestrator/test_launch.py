"""The driver's part that needs no workers: a finished run of which MLflow has not heard all."""

import json

import pytest
from mlflow import MlflowClient
from requests import HTTPError

from orchestrator.checkpoint import Checkpoints
from orchestrator.experiments import resolve
from orchestrator.launch import launch
from orchestrator.mlflow_runs import HEARTBEAT_TAG, create_run, find_run
from orchestrator.outbox import Outbox
from orchestrator.site import Site
from shards.storage import open_store


@pytest.fixture
def finished(site):
    """A function that starts the finished run `r-1` once more."""
    experiment = resolve("vgan_golf", None, ["model.width=2", "data.name=squares"])
    here = Site.from_environment()
    store = open_store(here.run("r-1"))
    store.write("result.json", json.dumps({"steps": 3, "metrics": {}}).encode())
    state = {"learner": experiment.model.build().state_dict()}
    Checkpoints(store, keep=2).save(3, state, {})
    return lambda: launch(experiment, here, "r-1", "v", as_json=False)


def test_launch_of_a_finished_run_delivers_what_waited_for_mlflow(finished, capsys):
    here = Site.from_environment()
    Outbox(here.outbox("r-1"), "driver").append({"kind": "status", "status": "FINISHED"})
    metrics = {"kind": "metrics", "step": 3, "ms": 1, "values": {"train/x": 2.0}}
    Outbox(here.outbox("r-1"), "rank0").append(metrics)

    assert finished() == 0
    assert "MLflow now has all that waited for it" in capsys.readouterr().out
    client = MlflowClient(here.mlflow_uri)
    run = find_run(client, "r-1")
    assert (run.info.status, run.data.metrics["train/x"]) == ("FINISHED", 2.0)
    assert HEARTBEAT_TAG not in run.data.tags
    assert client.get_model_version("vgan_golf", "1").run_id == run.info.run_id

    assert finished() == 0
    assert "waited" not in capsys.readouterr().out
    Outbox(here.outbox("r-1"), "rank0").append(metrics)
    assert finished() == 0
    assert len(client.search_model_versions("name='vgan_golf'")) == 1


def test_launch_of_a_run_whose_driver_was_killed_at_the_end_registers_and_ends_it(finished):
    here = Site.from_environment()
    client = MlflowClient(here.mlflow_uri)
    run_id = create_run(client, here.mlflow_uri, name="r-1", experiment="vgan").info.run_id
    told = Outbox(here.outbox("r-1"), "driver")
    told.append({"kind": "status", "status": "RUNNING"})
    told.sent(told.pending(1)[1])

    assert finished() == 0
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_model_version("vgan_golf", "1").run_id == run_id


@pytest.mark.parametrize("has_outbox", [True, False], ids=["here", "on another disk"])
def test_launch_of_a_finished_run_whose_model_mlflow_did_not_take_says_so_and_tries_again(
    finished, has_outbox, monkeypatch, capsys
):
    here = Site.from_environment()
    client = MlflowClient(here.mlflow_uri)
    run_id = create_run(client, here.mlflow_uri, name="r-1", experiment="vgan").info.run_id
    client.set_terminated(run_id, "FAILED")
    if has_outbox:
        Outbox(here.outbox("r-1"), "driver").append({"kind": "status", "status": "FINISHED"})

    def refuse(*_):
        raise HTTPError("500 Server Error: INTERNAL SERVER ERROR\nand a page of HTML")

    with monkeypatch.context() as broken:
        broken.setattr("mlflow.MlflowClient.log_artifacts", refuse)
        assert finished() == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: MLflow at {here.mlflow_uri} does not answer: 500 Server Error")
    assert client.get_run(run_id).info.status == "FAILED"
    assert finished() == 0
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_model_version("vgan_golf", "1").run_id == run_id


def test_launch_of_a_finished_run_elsewhere_delivers_what_a_lost_node_kept(
    site, bucket, request, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RUNS_ROOT", bucket)
    monkeypatch.setenv("HOME", str(tmp_path))  # where this machine's outboxes are
    here = Site.from_environment()
    lost = Outbox(tmp_path / "another", "rank0", open_store(here.run("r-1")))
    lost.append({"kind": "metrics", "step": 3, "ms": 1, "values": {"train/x": 2.0}})
    lost.keep()

    assert request.getfixturevalue("finished")() == 0
    assert "MLflow now has all that waited for it" in capsys.readouterr().out
    run = find_run(MlflowClient(here.mlflow_uri), "r-1")
    assert run.data.metrics["train/x"] == 2.0
