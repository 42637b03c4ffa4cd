"""What MLflow says of a run in words: held to what the words promise."""

import json
import shlex

import pytest
from mlflow import MlflowClient

from orchestrator import run
from orchestrator.mlflow_runs import NOTE_TAG, find_run
from orchestrator.registry import download, mark_best
from orchestrator.site import Site
from orchestrator.tracking import Tracker

SMALL = ["vgan_golf", "data.name=squares", "data.global_batch=3", "model.width=1"]
SMALL += ["budget.samples=1", "budget.steps=2", "resources.use_gpu=false", "resources.threads=1"]


@pytest.mark.usefixtures("in_process")
def test_notes_views_and_cards_of_a_run_lead_to_what_is_there(site, tmp_path, capsys):
    assert run.main([*SMALL, "--json"]) == 0
    name = json.loads(capsys.readouterr().out.splitlines()[-1])["run"]
    uri = Site.from_environment().mlflow_uri
    mlflow = MlflowClient(uri)
    told = find_run(mlflow, name)
    run_id = told.info.run_id

    lines = told.data.tags[NOTE_TAG].splitlines()
    again = next(line.strip() for line in lines if "orchestrator.run" in line)
    assert run.main(shlex.split(again)[3:]) == 0
    assert f"{name} is finished" in capsys.readouterr().out

    tags = mlflow.get_experiment(told.info.experiment_id).tags
    view = json.loads(json.loads(tags["mlflow.sharedViewState.training"])["state"])
    params = {each[8:-1] for each in view["selectedColumns"] if each.startswith("params.")}
    assert {"model.width", "seed", "optim.lr"} <= params <= told.data.params.keys()
    assert "| `vgan_golf` | VGAN 3.2, table 1, golf course, two-stream |" in tags[NOTE_TAG]

    version = mlflow.get_model_version("vgan_golf", "1")
    path = version.description.partition("path=")[2].partition("&")[0].replace("%2F", "/")
    assert path in {each.path for each in mlflow.list_artifacts(run_id, "samples")}
    assert f"run_uuid={run_id}" in version.description
    assert mark_best(uri, run_id) == "vgan_golf/1"
    found = download(uri, "models:/vgan_golf@best", tmp_path)
    assert json.loads((found / "artifacts/config.json").read_text())["run"] == name
    with pytest.raises(ValueError, match="no alias 'worst'; its aliases: best"):
        download(uri, "models:/vgan_golf@worst", tmp_path)
    with pytest.raises(ValueError, match="no registered model of this run"):
        mark_best(uri, "0" * 32)


@pytest.mark.usefixtures("in_process")
def test_note_that_a_person_wrote_stays(site, capsys):
    assert run.main([*SMALL, "--json"]) == 0
    name = json.loads(capsys.readouterr().out.splitlines()[-1])["run"]
    mlflow = MlflowClient(Site.from_environment().mlflow_uri)
    run_id = find_run(mlflow, name).info.run_id
    mlflow.set_tag(run_id, NOTE_TAG, "The one with the flicker.")
    (site / f"runs/{name}/result.json").unlink()  # as if it had not ended: it is driven again
    assert run.main(SMALL) == 0
    assert mlflow.get_run(run_id).data.tags[NOTE_TAG] == "The one with the flicker."


def test_note_that_is_refreshed_is_the_newest_until_a_person_changes_it(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow = MlflowClient(uri)
    for told, shown in [("one", "one"), ("two", "two"), (None, "mine"), ("three", "mine")]:
        if told is None:
            mlflow.set_tag(find_run(mlflow, "r").info.run_id, NOTE_TAG, "mine")
            continue
        tracker = Tracker(uri=uri, run="r", outbox=tmp_path, writer="driver", creates="vgan")
        tracker.notes(run=told)
        assert tracker.close(timeout_s=60)
        assert find_run(mlflow, "r").data.tags[NOTE_TAG] == shown
