"""Every check on something that is really wrong, and on something that is not."""

import http.server
import os
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import nodes, probe
from orchestrator.experiments import resolve
from orchestrator.nodes import Node
from orchestrator.overrides import override
from orchestrator.preflight import (
    Finding,
    PreflightError,
    dataset_readable,
    demand,
    mlflow_answers,
    room_for,
    run_checks,
    site_checks,
    storage_writable,
)
from orchestrator.site import Site
from shards.storage import LocalStore

EXPERIMENT = override(
    resolve("vgan_golf", None, []),
    ["data.name=squares", "data.global_batch=4", "model.width=2", "resources.use_gpu=false"],
)


def wrong(name):
    return Finding(problem=name, evidence="e", remedy="r")


def test_run_checks_keeps_the_order_and_what_each_found():
    found = run_checks({"b": lambda: wrong("b"), "a": lambda: None})
    assert list(found.items()) == [("b", wrong("b")), ("a", None)]


def test_run_checks_run_side_by_side():
    meet = threading.Barrier(3, timeout=10)

    def waits():
        meet.wait()

    assert run_checks(dict.fromkeys("abc", waits), deadline_s=20) == dict.fromkeys("abc")


def test_run_checks_one_hangs_and_one_breaks_are_findings_and_the_rest_stands():
    never, started = threading.Event(), time.monotonic()

    def breaks():
        raise KeyError("x")

    found = run_checks(
        {"hangs": lambda: never.wait(60) and None, "breaks": breaks, "good": lambda: None},
        deadline_s=0.5,
    )
    assert time.monotonic() - started < 10
    never.set()
    assert "not done" in found["hangs"].problem
    assert "KeyError" in found["breaks"].evidence
    assert found["good"] is None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a place not even root may write to")
def test_storage_writable_tells_a_good_folder_from_one_that_is_not(tmp_path):
    assert storage_writable(LocalStore(str(tmp_path))) is None
    assert not list(tmp_path.iterdir())
    finding = storage_writable(LocalStore("/proc/no-such-place"))
    assert finding.fatal
    assert "cannot write to /proc/no-such-place" in finding.problem
    assert "RUNS_ROOT" in finding.remedy


def test_storage_that_gives_back_other_bytes_is_found(tmp_path):
    class Forgetful(LocalStore):
        def read(self, name):
            return super().read(name)[:-1]

    assert "does not give back" in storage_writable(Forgetful(str(tmp_path))).problem


def test_room_for_compares_with_the_disk(tmp_path):
    missing = str(tmp_path / "not" / "yet")
    assert room_for(missing, 1, "x") is None
    assert "needed" in room_for(missing, 1 << 60, "x").evidence
    assert room_for("s3://bucket/runs", 1 << 60, "x") is None


def test_dataset_readable_finds_a_flipped_bit_and_a_missing_shard(tmp_path, make_dataset):
    location = tmp_path / "squares"
    make_dataset(location)
    assert dataset_readable(str(location)) is None
    for shard in location.glob("shards/*.tar"):
        data = bytearray(shard.read_bytes())
        for offset in range(2000, len(data), 50_000):  # every clip is larger than that
            data[offset] ^= 1
        shard.write_bytes(data)
    damaged = dataset_readable(str(location))
    assert "crc32c" in damaged.evidence
    assert "shards.verify" in damaged.remedy
    assert not damaged.fatal
    next(location.glob("shards/*.tar")).unlink()
    assert dataset_readable(str(location)).fatal


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every GET as the server says; keeps the headers."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(self.server.code)
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.code, server.text, server.seen = 200, b"{}", []
        server.uri = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def test_mlflow_answers_asks_the_api_with_the_users_credentials(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert mlflow_answers(server.uri + "/") is None
    path, authorization = server.seen[0]
    assert path.startswith("/api/2.0/mlflow/experiments/search")
    assert authorization == "Basic YWRhOnNlY3JldA=="


@pytest.mark.parametrize(
    ("code", "text", "remedy"),
    [
        (403, b"Invalid Host header", "--allowed-hosts '127.0.0.1,127.0.0.1:*"),
        (401, b"You are not authenticated", "MLFLOW_TRACKING_PASSWORD"),
        (404, b"", "another server"),
    ],
)
def test_mlflow_refusal_is_explained(server, code, text, remedy):
    server.code, server.text = code, text
    finding = mlflow_answers(server.uri)
    assert f"HTTP {code}: {text.decode()}" in finding.evidence
    assert remedy in finding.remedy
    assert not finding.fatal


def test_mlflow_away_or_of_another_kind_is_found():
    assert "does not answer" in mlflow_answers("http://127.0.0.1:9").problem
    assert "sqlite:///" in mlflow_answers("file:///tmp/mlruns").remedy


def test_mlflow_sqlite_is_a_database_that_can_be_written(tmp_path):
    path = tmp_path / "deep" / "mlflow.db"
    assert mlflow_answers(f"sqlite:///{path}") is None  # it will be made
    assert not path.exists()
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert mlflow_answers(f"sqlite:///{path}") is None
    path.write_bytes(b"no database" * 100)
    assert "not a database" in mlflow_answers(f"sqlite:///{path}").evidence


def test_demand_passes_a_good_site_and_warns_of_what_is_not_fatal(site, capsys, monkeypatch):
    demand(site_checks(Site.from_environment(), EXPERIMENT))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    demand(site_checks(Site.from_environment(), EXPERIMENT))
    assert "warning: MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_demand_missing_dataset_is_refused_with_the_remedy(site):
    missing = override(EXPERIMENT, ["data.name=none"])
    with pytest.raises(PreflightError, match="no dataset at"):
        demand(site_checks(Site.from_environment(), missing))


VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0", "code": "abc"}
GOOD = Node(name="a", versions=VERSIONS, disk_used=0.5, shm_bytes=1 << 30)


@pytest.mark.parametrize(
    ("check", "bad", "evidence"),
    [
        (nodes.all_answer, replace(GOOD, name="b", error="ModuleNotFoundError"), "b: ModuleNot"),
        (
            nodes.versions_equal,
            replace(GOOD, name="b", versions=VERSIONS | {"torch": "2.12.0"}),
            "torch: 2.13.0 on a, 2.12.0 on b",
        ),
        (nodes.clocks_agree, replace(GOOD, name="b", clock_ahead_s=-9, clock_within_s=1), "-9.0 s"),
        (nodes.disks_have_room, replace(GOOD, name="b", disk_used=0.96), "b: 96.0% used"),
        (nodes.shared_memory_fits, replace(GOOD, name="b", shm_bytes=64 << 20), "b: 64 MiB"),
    ],
)
def test_node_check_finds_the_one_that_differs(check, bad, evidence):
    assert check([GOOD, replace(GOOD, name="c")]) is None
    assert evidence in check([GOOD, bad]).evidence


def test_all_answer_late_node_is_no_reason_to_fail_and_hides_none():
    late = replace(GOOD, name="b", error="Get timed out", late=True)
    assert not nodes.all_answer([GOOD, late]).fatal
    broken = replace(GOOD, name="c", error="ModuleNotFoundError")
    found = nodes.all_answer([late, broken])
    assert found.fatal
    assert found.evidence == "c: ModuleNotFoundError"


def test_clocks_agree_does_not_accuse_within_what_it_cannot_tell():
    slow = replace(GOOD, clock_ahead_s=9, clock_within_s=8)
    assert nodes.clocks_agree([GOOD, slow]) is None


def test_gpus_visible_tells_missing_from_hidden():
    four = replace(GOOD, gpus=4, advertised_gpus=4)
    assert nodes.gpus_visible([four, four], least=8) is None
    assert not nodes.gpus_visible([four], least=8).fatal  # an autoscaler may bring them
    assert "2 of 4" in nodes.gpus_visible([replace(four, gpus=2)], least=1).evidence


@pytest.fixture(scope="module")
def two_nodes():
    """A head with its dashboard and a second raylet, and this process as their driver."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True}
    )
    try:
        cluster.add_node(num_cpus=0)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.timeout(180)
def test_gather_asks_every_node_and_finds_nothing_wrong_on_one_machine(two_nodes):
    facts = probe.gather(timeout_s=60)
    assert [node.error for node in facts] == ["", ""]
    assert len({node.name for node in facts}) == 2
    assert facts[0].versions == facts[1].versions
    assert abs(facts[1].clock_ahead_s) <= facts[1].clock_within_s + 0.05  # one machine, one clock
    found = run_checks(probe.cluster_checks(None, timeout_s=60), deadline_s=90)
    assert [str(finding) for finding in found.values() if finding is not None] == []


@pytest.mark.timeout(180)
def test_gather_node_that_has_no_time_to_answer_is_late(two_nodes):
    assert [node.late for node in probe.gather(timeout_s=0)] == [False, True]


@pytest.mark.timeout(180)
def test_state_api_of_another_cluster_or_of_none_is_found(two_nodes, monkeypatch):
    from ray.experimental import internal_kv

    file = Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster")
    before = file.read_text() if file.exists() else None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("192.0.2.1:6379")
        assert "192.0.2.1:6379" in probe.state_api_answers().evidence
        monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
        assert probe.state_api_answers() is None
    finally:
        file.unlink() if before is None else file.write_text(before)
    address = internal_kv._internal_kv_get(b"dashboard", namespace=b"dashboard")
    internal_kv._internal_kv_del(b"dashboard", namespace=b"dashboard")
    assert "no dashboard" in probe.state_api_answers().evidence
    internal_kv._internal_kv_put(b"dashboard", address, namespace=b"dashboard")


@pytest.mark.timeout(180)
def test_all_reduce_over_two_nodes_is_timed(two_nodes):
    assert 0.01 < probe.all_reduce_gbit_s(mib=4, rounds=3) < 1000
