"""The doctor as a user calls it, on sites that are well and ill; MLflow is a real store."""

import json
import time

import pytest
from mlflow import MlflowClient

from orchestrator.doctor import main
from orchestrator.mlflow_runs import HEARTBEAT_TAG, RUN_TAG, create_run

SMALL = ["data.name=squares", "data.global_batch=4", "model.width=2", "resources.use_gpu=false"]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def checks(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])["checks"]


def test_doctor_good_site_exits_0_and_leaves_nothing(site, capsys):
    assert main(["vgan_golf", *SMALL, "--json"]) == 0
    assert set(checks(capsys)) == {"storage", "mlflow", "disk", "dataset", "zombies"}
    assert not list((site / "runs").iterdir())
    assert not (site / "mlflow.db").exists()


def test_doctor_ill_site_exits_1_with_problem_evidence_and_remedy(site, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (site / "shards/squares/shards/000001.tar").unlink()
    assert main(["vgan_golf", *SMALL]) == 1
    out = capsys.readouterr().out
    assert "WRONG  dataset: the dataset at" in out
    assert "000001" in out
    assert "remedy    See all that is wrong: python -m shards.verify" in out
    assert "WRONG  mlflow: MLflow at http://127.0.0.1:9 does not answer" in out
    assert "ok     storage" in out
    assert "2 of 4 checks" in out


def test_doctor_cluster_that_is_not_there_is_said_at_once(site, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    started = time.monotonic()
    assert main(["--json"]) == 1
    assert time.monotonic() - started < 10
    found = checks(capsys)["cluster"]
    assert "127.0.0.1:9" in found["problem"]
    assert "RAY_ADDRESS" in found["remedy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgan_gulf"], "did you mean 'vgan_golf'"),
        (["vgan_golf", "model.wdith=2"], "did you mean 'width'"),
        (["--scale", "laptop"], "name an experiment"),
        (["--bandwidth"], "RAY_ADDRESS"),
    ],
)
def test_doctor_wrong_call_exits_2(site, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_doctor_names_the_runs_that_nobody_drives_and_reaps_those_alone(site, capsys):
    uri = f"sqlite:///{site}/mlflow.db"
    client = MlflowClient(uri)
    ids = {}
    for name, beat_ago_s in {"dead": 3600, "alive": 20, "over": 3600}.items():
        ids[name] = create_run(client, uri, name=name, experiment="vgan").info.run_id
        client.set_tag(ids[name], HEARTBEAT_TAG, time.time() - beat_ago_s)
    client.set_terminated(ids["over"], "FINISHED")
    experiment = client.get_experiment_by_name("vgan").experiment_id
    hour_ago = int(1000 * (time.time() - 3600))
    ids["foreign"] = client.create_run(experiment, start_time=hour_ago).info.run_id
    tags = {RUN_TAG: "never beat"}
    ids["never beat"] = client.create_run(experiment, start_time=hour_ago, tags=tags).info.run_id
    assert main(["--json"]) == 1
    named = checks(capsys)["zombies"]["evidence"].split("; ")
    assert sorted(named) == ["dead, silent for 60 min", "never beat, silent for 60 min"]
    assert main(["--reap"]) == 0
    status = {name: client.get_run(run).info.status for name, run in ids.items()}
    assert status == {
        "dead": "KILLED",
        "alive": "RUNNING",
        "over": "FINISHED",
        "foreign": "RUNNING",
        "never beat": "KILLED",
    }
