"""The tracked ingest: a real MLflow store says the same as the report."""

import json
from pathlib import Path

import mlflow
import pytest

from orchestrator import ingest
from orchestrator.mlflow_runs import RUN_TAG
from shards.demo import encode, scenes
from shards.manifest import load_manifest
from shards.storage import LocalStore


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with three sample videos, one that is none, and a site around them."""
    for number, scene in enumerate(scenes(3)):
        encode(scene, tmp_path / f"v{number}.mp4", 34)
    (tmp_path / "text.mp4").write_text("no video")
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def runs(place):
    client = mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("ingest")
    return client, client.search_runs([experiment.experiment_id]) if experiment else []


def test_ingest_is_told_to_mlflow_with_recipe_numbers_report_and_version(place, capsys):
    arguments = [str(place), str(place / "d"), "--workers", "1", "--stabilizer", "lk"]
    assert ingest.main(arguments) == 0
    client, [run] = runs(place)
    manifest = load_manifest(LocalStore(str(place / "d")))
    report = json.loads((place / "d/report.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset.version"] == manifest.version
    assert run.data.tags["dataset.samples"] == "3"
    assert run.data.tags[RUN_TAG].startswith("ingest-d-")
    assert run.data.params["recipe.stabilizer"] == "lk"
    assert run.data.params["dst"] == str(place / "d")
    metrics = run.data.metrics
    assert metrics["clips/kept"] == 3
    assert metrics["videos/not_video"] == 1
    assert metrics["cut/done"] == 4
    assert metrics["pack/done"] == 1
    seconds = sum(video["seconds"] for video in report["videos"])
    spent = sum(sum(video["cpu_s"].values()) for video in report["videos"])
    assert metrics["hours_of_video"] == pytest.approx(seconds / 3600)
    assert metrics["hours_of_video_per_core_hour"] == pytest.approx(seconds / spent)
    path = client.download_artifacts(run.info.run_id, "report.json", str(place))
    assert json.loads(Path(path).read_text()) == report
    assert ingest.main(arguments) == 0  # already complete: the same run, told nothing new
    assert len(runs(place)[1]) == 1
    assert capsys.readouterr().out.count("MLflow: ") == 2


def test_ingest_that_keeps_nothing_leaves_a_failed_run_with_its_report(place, capsys):
    for path in place.glob("v*.mp4"):
        path.unlink()
    assert ingest.main([str(place), str(place / "d"), "--workers", "1"]) == 1
    client, [run] = runs(place)
    assert run.info.status == "FAILED"
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["report.json"]
    assert "was kept" in capsys.readouterr().err


def test_wrong_call_makes_no_run(place, capsys):
    assert ingest.main([str(place / "none"), str(place / "d")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert runs(place)[1] == []
