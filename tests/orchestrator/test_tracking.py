"""Tracking against real MLflow stores: SQLite in process, and a server that is not always there."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.mlflow_runs import HEARTBEAT_TAG, RUN_TAG, create_run, find_run, reap
from orchestrator.outbox import Outbox
from orchestrator.tracking import Tracker
from shards.storage import open_store


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def tracker(uri, tmp_path, writer="driver", creates="vgan", **options):
    return Tracker(
        uri=uri, run="r-1", outbox=tmp_path / "out", writer=writer, creates=creates, **options
    )


def _history(uri, key):
    client = MlflowClient(uri)
    run = find_run(client, "r-1")
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


def test_tracker_tells_everything_to_sqlite(uri, tmp_path):
    one = tracker(uri, tmp_path)
    one.params({"optim.lr": 1e-4})
    one.tags({"orchestrator.paper": "VGAN 3.1"})
    one.dataset(name="demo", version="ab" * 32, source="/data", counts={"clips": 7})
    one.metrics(10, {"train/d_loss": 1.5, "train/g_loss": float("nan")})
    one.artifact("samples/a.txt", b"hello")
    one.status("FINISHED")
    assert one.close(timeout_s=60)
    client = MlflowClient(uri)
    run = find_run(client, "r-1")
    assert run.data.params == {"optim.lr": "0.0001"}
    assert run.data.tags["orchestrator.paper"] == "VGAN 3.1"
    assert run.data.metrics["train/d_loss"] == 1.5
    assert run.info.status == "FINISHED"
    assert run.inputs.dataset_inputs[0].dataset.name == "demo"
    path = client.download_artifacts(run.info.run_id, "samples/a.txt", str(tmp_path))
    assert Path(path).read_bytes() == b"hello"


def test_tracker_of_a_second_attempt_adds_no_second_point_at_a_step(uri, tmp_path):
    first = tracker(uri, tmp_path)
    for step in (1, 2, 3):
        first.metrics(step, {"train/x": float(step)})
    assert first.close(timeout_s=60)
    second = tracker(uri, tmp_path)  # resumed from the checkpoint after step 1
    for step in (2, 3, 4):
        second.metrics(step, {"train/x": float(step)})
    assert second.close(timeout_s=60)
    assert _history(uri, "train/x") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_tracker_refused_record_does_not_hold_up_those_behind_it(uri, tmp_path, caplog):
    one = tracker(uri, tmp_path)
    one.params({"optim.lr": 1})
    one.params({"optim.lr": 2})  # a param cannot change
    one.metrics(1, {"train/x": 1.0})
    assert one.close(timeout_s=60)
    assert _history(uri, "train/x") == [(1, 1.0)]
    assert "refused a params record" in caplog.text


def test_tracker_that_delivers_neither_beats_nor_makes_a_finished_run_run_again(uri, tmp_path):
    client = MlflowClient(uri)
    run_id = create_run(client, uri, name="r-1", experiment="vgan").info.run_id
    client.set_terminated(run_id, "FINISHED")
    waiting = Outbox(tmp_path / "out", "driver")
    waiting.append({"kind": "status", "status": "RUNNING"})
    waiting.append({"kind": "metrics", "step": 1, "ms": 1, "values": {"train/x": 1.0}})
    assert tracker(uri, tmp_path, delivers=True).close(timeout_s=60)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"train/x": 1.0})
    assert HEARTBEAT_TAG not in run.data.tags


def test_run_ends_when_it_ended_however_late_it_is_told(uri, tmp_path):
    ended = {"kind": "status", "status": "KILLED", "ms": 1_700_000_000_000}
    Outbox(tmp_path / "out", "driver").append(ended)
    assert tracker(uri, tmp_path).close(timeout_s=60)
    info = find_run(MlflowClient(uri), "r-1").info
    assert (info.status, info.end_time) == ("KILLED", 1_700_000_000_000)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.timeout(180)
def test_tracker_server_away_keeps_everything_and_sends_it_when_it_is_back(tmp_path, caplog):
    port = _free_port()
    uri = f"http://127.0.0.1:{port}"
    one = tracker(uri, tmp_path)
    one.metrics(1, {"train/x": 1.0})
    assert not one.close(timeout_s=30)
    assert caplog.text.count("Training goes on") == 1
    assert str(tmp_path / "out") in caplog.text
    server = _server(port, tmp_path)
    try:
        two = tracker(uri, tmp_path)
        two.metrics(2, {"train/x": 2.0})
        assert two.close(timeout_s=60)
        assert _history(uri, "train/x") == [(1, 1.0), (2, 2.0)]
        assert two.page.startswith(f"{uri}/#/experiments/")
    finally:
        server.terminate()
        server.wait(20)


def _server(port, folder):
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    store = f"sqlite:///{folder}/server.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", store]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
        except OSError:
            time.sleep(0.3)
        else:
            return server
    server.kill()
    raise AssertionError((folder / "server.log").read_text())


ON_A_NODE_THAT_DIES = """
import os, signal, sys
from pathlib import Path
from orchestrator.tracking import Tracker
from shards.storage import open_store

uri, disk, store = sys.argv[1:]
one = Tracker(uri=uri, run="r-1", outbox=Path(disk), writer="rank0", store=open_store(store))
for step in (1, 2, 3):
    one.metrics(step, {"train/x": float(step)})
one.artifact("samples/a.txt", b"hello")
one.keep()  # and the checkpoint of step 3
one.metrics(4, {"train/x": 4.0})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.timeout(180)
def test_node_lost_while_the_server_is_away_is_told_from_what_was_kept(tmp_path, bucket):
    port = _free_port()
    uri, store = f"http://127.0.0.1:{port}", open_store(f"{bucket}/r-1")
    command = [sys.executable, "-c", ON_A_NODE_THAT_DIES, uri, str(tmp_path / "a"), store.location]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    shutil.rmtree(tmp_path / "a")
    two = tracker(uri, tmp_path / "b", "rank0", store=store)
    for step in (3, 4, 5):
        two.metrics(step, {"train/x": 10.0 * step})
    server = _server(port, tmp_path)
    try:
        assert two.close(timeout_s=60)
        assert _history(uri, "train/x") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0)]
        client = MlflowClient(uri)
        run_id = find_run(client, "r-1").info.run_id
        path = client.download_artifacts(run_id, "samples/a.txt", str(tmp_path))
        assert Path(path).read_bytes() == b"hello"
    finally:
        server.terminate()
        server.wait(20)
    assert list(store.list("outbox/")) == []


def test_node_lost_after_all_was_sent_tells_no_step_twice(uri, tmp_path):
    one = tracker(uri, tmp_path / "a", "rank0")
    for step in range(1, 6):
        one.metrics(step, {"train/x": float(step)})
    one.metrics(5, {"val/y": 5.0})
    one.system_metrics({"system/cpu": 1.0})
    assert one.close(timeout_s=60)
    two = tracker(uri, tmp_path / "b", "rank0")  # resumed from the checkpoint after step 3
    for step in range(4, 8):
        two.metrics(step, {"train/x": 10.0 * step})
    two.system_metrics({"system/cpu": 2.0})
    assert two.close(timeout_s=60)
    steps = [(step, float(step)) for step in range(1, 6)]
    assert _history(uri, "train/x") == [*steps, (6, 60.0), (7, 70.0)]
    assert _history(uri, "system/cpu") == [(0, 1.0), (0, 2.0)]


def test_tracker_back_on_its_first_node_tells_what_the_second_kept(uri, tmp_path, bucket):
    store = open_store(f"{bucket}/r-1")
    first = tracker(uri, tmp_path / "a", "rank0", store=store)
    first.metrics(1, {"train/x": 1.0})
    assert first.close(timeout_s=60)
    second = Outbox(tmp_path / "b", "rank0", store)
    now = int(time.time() * 1000)
    second.append({"kind": "metrics", "step": 2, "ms": now, "values": {"train/x": 2.0}})
    second.keep()
    again = tracker(uri, tmp_path / "a", "rank0", store=store)
    again.metrics(3, {"train/x": 3.0})
    assert again.close(timeout_s=60)
    assert _history(uri, "train/x") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_reap_ends_only_runs_of_ours_that_nobody_drives(uri, tmp_path):
    driven = tracker(uri, tmp_path)
    driven.status("RUNNING")
    assert driven.close(timeout_s=60)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("vgan").experiment_id
    an_hour_ago = int((time.time() - 3600) * 1000)
    mine = {RUN_TAG: "r-2"}
    dead = client.create_run(experiment, start_time=an_hour_ago, tags=mine).info.run_id
    stale = mine | {HEARTBEAT_TAG: str(time.time() - 600)}
    silent = client.create_run(experiment, start_time=an_hour_ago, tags=stale).info.run_id
    others = client.create_run(experiment, start_time=an_hour_ago).info.run_id
    assert reap(client) == ["r-2", "r-2"]
    status = {run: client.get_run(run).info.status for run in (dead, silent, others)}
    assert status == {dead: "KILLED", silent: "KILLED", others: "RUNNING"}
    assert find_run(client, "r-1").info.status == "RUNNING"
