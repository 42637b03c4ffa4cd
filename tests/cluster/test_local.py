"""The local cluster for real: Ray and MLflow on free ports.

The folder and the interpreter have a space in their paths, which Ray by itself does not survive.
"""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from cluster.local import Ports, Record, main, plan

REPORT = (
    "import json, os, sys, ray; ray.init(); "
    "names = ['SHARDS_ROOT', 'RUNS_ROOT', 'MLFLOW_TRACKING_URI']; "
    "print('REPORT', json.dumps([sys.executable, os.getcwd()] + [os.environ[n] for n in names]))"
)


def _run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m cluster.local` in `root`, as a user calls it who cloned to a path with a space."""
    if not (root / "env").exists():
        (root / "env").symlink_to(sys.prefix)
    python = root / "env" / Path(sys.executable).relative_to(sys.prefix)
    command = [str(python), "-m", "cluster.local", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def _processes(record: Record) -> list[psutil.Process]:
    """The services' first processes and all their descendants, as the kernel has them."""
    first = [psutil.Process(started.pid) for started in record.services.values()]
    return first + [child for process in first for child in process.children(recursive=True)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose cluster is up, on ports that were free."""
    root = tmp_path_factory.mktemp("a place")
    with ExitStack() as held:
        servers = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        ports = [server.getsockname()[1] for server in servers]
    names = ("ray", "dashboard", "client", "mlflow")
    options = [f"--{name}-port={port}" for name, port in zip(names, ports, strict=True)]
    try:
        answer = _run(root, "up", *options)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        yield root
    finally:
        _run(root, "down")


def test_job_submitted_to_a_cluster_that_is_up_runs_in_its_site(root: Path) -> None:
    submit = '. var/cluster/local.env && "$0" -m ray.scripts.scripts job submit -- "$@"'
    command = ["sh", "-c", submit, sys.executable, "python", "-c", REPORT]
    job = subprocess.run(command, cwd=root, capture_output=True, text=True)

    assert job.returncode == 0, job.stdout + job.stderr
    lines = [line for line in job.stdout.splitlines() if line.startswith("REPORT")]
    python, *site = json.loads(lines[0].removeprefix("REPORT"))
    assert Path(python).parents[1].resolve() == Path(sys.prefix).resolve()
    mlflow = f"http://127.0.0.1:{Record.load(root).ports.mlflow}"
    assert site == [str(root), str(root / "var/shards"), str(root / "var/runs"), mlflow]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS shows connections to root only")
def test_cluster_that_is_up_listens_on_loopback_only(root: Path) -> None:
    listening = [
        connection.laddr
        for process in _processes(Record.load(root))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {port for _, port in listening} >= set(asdict(Record.load(root).ports).values())
    assert {host for host, _ in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_up_on_a_cluster_that_is_up_changes_nothing(root: Path) -> None:
    before = Record.load(root)

    answer = _run(root, "up")

    assert (answer.returncode, answer.stdout.splitlines()[0]) == (0, "already up")
    assert Record.load(root) == before


def test_up_with_other_ports_than_the_running_ones_is_refused(root: Path) -> None:
    answer = _run(root, "up", "--mlflow-port", "5999")

    assert answer.returncode == 1
    assert "python -m cluster.local down" in answer.stderr


def test_up_after_mlflow_was_killed_restarts_it_alone(root: Path) -> None:
    before = Record.load(root).services
    os.kill(before["mlflow"].pid, signal.SIGKILL)
    assert _run(root, "status").returncode == 1

    answer = _run(root, "up")

    assert answer.returncode == 0, answer.stderr
    after = Record.load(root).services
    assert after["ray"] == before["ray"]
    assert after["mlflow"].pid != before["mlflow"].pid
    assert _run(root, "status").returncode == 0


def test_down_ends_every_process_of_the_cluster(root: Path) -> None:
    record = Record.load(root)
    processes = _processes(record)

    answer = _run(root, "down")

    assert answer.returncode == 0, answer.stderr
    assert [process for process in processes if _runs(process)] == []
    assert [port for port in asdict(record.ports).values() if not _is_refused(port)] == []
    assert _run(root, "status").returncode == 1
    assert "nothing to take down" in _run(root, "down").stdout


def test_up_on_a_busy_port_names_it_its_owner_and_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = _run(tmp_path, "up", "--dashboard-port", str(port))

    assert answer.returncode == 1
    assert f"port {port}" in answer.stderr
    assert f"pid {os.getpid()}" in answer.stderr
    assert "--dashboard-port" in answer.stderr
    assert Record.load(tmp_path).services == {}


@pytest.mark.parametrize(
    "options", [["--ray-port", "80"], ["--ray-port=7000", "--mlflow-port=7000"]]
)
def test_up_with_impossible_ports_is_a_wrong_call(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["up", *options])
    assert caught.value.code == 2


def test_plan_keeps_urls_and_makes_paths_absolute(tmp_path: Path) -> None:
    given = {"SHARDS_ROOT": "s3://bucket/shards", "RUNS_ROOT": "runs", "PATH": "/bin"}

    head, _ = plan(tmp_path, Ports(), given)

    assert head.environment["SHARDS_ROOT"] == "s3://bucket/shards"
    assert head.environment["RUNS_ROOT"] == str(tmp_path / "runs")


def test_plan_inherits_no_address_of_another_cluster(tmp_path: Path) -> None:
    other = {
        "RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_API_SERVER_ADDRESS": "http://10.0.0.1:8265",
        "MLFLOW_TRACKING_URI": "http://10.0.0.1:5000",
    }
    for service in plan(tmp_path, Ports(), other):
        assert "10.0.0.1" not in " ".join([*service.argv, *service.environment.values()])
