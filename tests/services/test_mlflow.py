"""MLflow as a team has it: passwords, PostgreSQL, artifacts in S3, and a server that goes away."""

import base64
import io
import json
import time
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient
from PIL import Image

from orchestrator import compare, doctor, evaluate, generate, launch, reproduce, run
from orchestrator.mlflow_runs import NOTE_TAG, RUN_TAG, find_run
from orchestrator.outbox import Outbox
from orchestrator.preflight import mlflow_answers
from orchestrator.registry import mark_best
from orchestrator.site import Site
from orchestrator.tracking import Tracker
from shards.storage import open_store
from tests.orchestrator.webdriver import Browser, chromedriver, missing
from tests.services.servers import ADMIN, PASSWORD, RESEARCHER

SMALL = ["sync_draw_one_digit", "data.global_batch=4", "model.hidden=8", "model.strokes=2"]
SMALL += ["budget.samples=2", "budget.steps=6", "budget.samples_every=6", "budget.log_every=1"]
SMALL += ["budget.checkpoint_every=2", "resources.use_gpu=false", "resources.cpus_per_worker=1"]
SMALL += ["resources.threads=1", "data.reader_threads=1", "--json"]


def _last(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def _steps(mlflow, name, metric):
    return [
        each.step for each in mlflow.get_metric_history(find_run(mlflow, name).info.run_id, metric)
    ]


def test_wrong_password_is_told_with_the_variables_to_set(server, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert f"WRONG  mlflow: MLflow at {server.uri} refuses requests" in said
    assert "HTTP 401" in said
    assert "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in said
    assert compare.main(["--paper", "sync_draw_table1"]) == 2
    error = capsys.readouterr().err
    assert f"MLflow at {server.uri}" in error
    assert "MLFLOW_TRACKING_PASSWORD" in error


def test_host_that_the_server_was_not_told_of_is_told_with_its_option(server):
    finding = mlflow_answers(f"http://2130706433:{server.port}")  # 127.0.0.1 by another name
    assert "HTTP 403: Invalid Host header" in finding.evidence
    assert "--allowed-hosts '2130706433,2130706433:*" in finding.remedy


@pytest.mark.usefixtures("in_process")
def test_run_interrupted_and_resumed_is_one_run_and_all_commands_read_it(
    server, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("orchestrator.worker.ASK_EVERY_S", -1.0)
    train = launch.train

    def stopped(job):
        open_store(job.site.run(job.name)).write("stop", b"")
        return train(job)

    with monkeypatch.context() as first:
        first.setattr(launch, "train", stopped)
        assert run.main(SMALL) == 1
        assert "stopped saved at step 1" in capsys.readouterr().err
    assert run.main(SMALL) == 0
    name = _last(capsys)["run"]
    mlflow = MlflowClient(server.uri)
    here = mlflow.get_experiment_by_name("sync_draw")
    assert "Sync-DRAW (Mittal" in here.tags[NOTE_TAG]
    runs = mlflow.search_runs([here.experiment_id], f"tags.`{RUN_TAG}` = '{name}'")
    assert [each.info.status for each in runs] == ["FINISHED"]
    assert _steps(mlflow, name, "train/loss") == [1, 2, 3, 4, 5, 6]

    run_id, bucket = runs[0].info.run_id, boto3.client("s3")
    sheet = Path(mlflow.download_artifacts(run_id, "samples/step-00000006.png", str(tmp_path)))
    key = f"artifacts/{here.experiment_id}/{run_id}/artifacts/samples/step-00000006.png"
    assert bucket.get_object(Bucket="mlflow", Key=key)["Body"].read() == sheet.read_bytes()
    assert Image.open(io.BytesIO(sheet.read_bytes())).format == "PNG"
    checkpoints = runs[0].data.tags["orchestrator.checkpoints"]
    assert any(open_store(checkpoints).list(f"{6:08d}/"))

    out = ["--out", str(tmp_path / "out")]
    assert mark_best(server.uri, run_id) == "sync_draw_one_digit/1"
    assert mlflow.get_model_version_by_alias("sync_draw_one_digit", "best").run_id == run_id
    assert generate.main(["models:/sync_draw_one_digit@best", "--count", "2", *out]) == 0
    assert evaluate.main([run_id, "--clips", "8", *out]) == 0
    assert "val/reconstruction" in mlflow.get_run(run_id).data.metrics
    capsys.readouterr()
    assert compare.main(["--paper", "sync_draw_table1", "--json", *out]) == 0
    cells = _last(capsys)["cells"]
    assert [cell["ours"]["runs"] for cell in cells if cell["ours"]] == [[name]]
    assert reproduce.main([run_id, "--json"]) == 0
    assert _last(capsys)["verdict"] == "bit-identical"
    assert run.main([*SMALL, "optim.lr=0.5"]) == 0
    other = _last(capsys)["run"]
    assert compare.main([name, other, "--json", *out]) == 0
    compared = _last(capsys)
    assert compared["differing"] == ["optim.lr"]
    (curves,) = [each for each in compared["curves"] if each["metric"] == "train/loss"]
    for each in (name, other):
        history = mlflow.get_metric_history(find_run(mlflow, each).info.run_id, "train/loss")
        assert curves["runs"][each]["steps"] == [told.step for told in history]
        assert curves["runs"][each]["values"] == pytest.approx([told.value for told in history])
    (page,) = (tmp_path / "out").glob("*.html")
    assert page.read_text().count("data:image/") >= 2, "samples of both, from S3"
    _require_pages(server, here.experiment_id, name)


def _require_pages(server, experiment_id, name):
    """What a researcher sees in a browser: the saved view's columns, and the card's picture."""
    if missing() is not None:
        return
    user = base64.b64encode(":".join(RESEARCHER).encode()).decode()
    view = f"#/experiments/{experiment_id}/runs?viewStateShareKey=training"
    with chromedriver() as driver:
        browser = Browser(driver, 1900, 1000)
        try:
            browser.cdp("Network.enable")
            headers = {"Authorization": f"Basic {user}"}
            browser.cdp("Network.setExtraHTTPHeaders", headers=headers)
            browser.open(f"{server.uri}/{view}&workflowType=machine_learning")
            shown = _until(browser, "return document.body.innerText", name)
            assert "train/loss" in shown
            assert "Error loading shared view" not in shown
            browser.open(f"{server.uri}/#/models/sync_draw_one_digit/versions/1")
            width = "return String(document.querySelector('img[src^=get-artifact]')?.naturalWidth)"
            assert int(_until(browser, width, "")) > 100
        finally:
            browser.close()


def _until(browser, script, part):
    """What the script gives, once it is something that contains `part`."""
    deadline = time.monotonic() + 90
    while True:
        found = browser.run(script)
        if found not in ("", "0", "undefined") and part in found:
            return found
        assert time.monotonic() < deadline, found[:2000]
        time.sleep(0.3)


@pytest.mark.usefixtures("in_process")
def test_server_away_while_a_run_trains_and_back_at_its_end_has_all_of_it(
    server, monkeypatch, capsys
):
    train = launch.train

    def train_alone(job):
        server.stop()
        try:
            return train(job)
        finally:
            server.start()

    monkeypatch.setattr(launch, "train", train_alone)
    assert run.main([*SMALL, "seed=1"]) == 0
    name = _last(capsys)["run"]
    assert run.main([*SMALL, "seed=1"]) == 0, "the same command delivers what waited"
    mlflow = MlflowClient(server.uri)
    assert _steps(mlflow, name, "train/loss") == [1, 2, 3, 4, 5, 6]
    told = find_run(mlflow, name)
    assert told.info.status == "FINISHED"
    kept = {each.path for each in mlflow.list_artifacts(told.info.run_id, "samples")}
    assert {"samples/step-00000006.gif", "samples/step-00000006.png"} <= kept
    assert Site.from_environment().outbox(name).exists()


def test_run_of_somebody_who_may_only_read_says_who_may_let_them(
    server, tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as admin:
        admin.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
        admin.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        server.make_user("bob", "a-password-of-his-own")
        MlflowClient(server.uri).create_experiment("bouncing_reader")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-password-of-his-own")
    assert mlflow_answers(server.uri) is None, "he may read"
    told = Tracker(
        uri=server.uri, run="r-1", outbox=tmp_path, writer="driver", creates="bouncing_reader"
    )
    told.metrics(1, {"train/x": 1.0})
    assert not told.close(timeout_s=30)
    assert "bob needs EDIT on that experiment" in caplog.text
    assert not Outbox(tmp_path, "driver").is_empty
