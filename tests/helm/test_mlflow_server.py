"""The very commands of the chart's MLflow pods, on SQLite and a folder instead of services."""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.service import free_port
from tests.helm.manifests import example, only, render

pytest.importorskip("helm_python", reason="no wheel for this machine: rendering needs Linux x86_64")
pytest.importorskip("flask_wtf", reason="MLflow's basic auth needs Flask-WTF: run make setup")
MANIFESTS = render(example("eks-spot-64gpu"))
ADMIN, RUNS = ("boss", "a password of the boss"), ("runs", "a password of runs")
DEADLINE_S = 120.0


def container(kind: str) -> dict[str, Any]:
    name = "-migrate" if kind == "Job" else "-mlflow"
    pod = only(MANIFESTS, kind, name)["spec"]["template"]["spec"]
    return dict(pod["containers"][0])


def environment(kind: str, folder: Path, secrets: dict[str, str]) -> dict[str, str]:
    """What the pod would have, with the values of its Secrets; S3 is left out."""
    out = dict(os.environ)
    for each in container(kind)["env"]:
        reference = each.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            out[each["name"]] = secrets[reference["key"]]
        elif not each["name"].startswith("AWS_"):
            out[each["name"]] = each["value"]
    return {**out, "HOME": str(folder), "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini")}


def command(kind: str) -> list[str]:
    python, *rest = container(kind)["command"]
    assert python == "python"
    return [sys.executable, *rest]


def secrets(folder: Path, password: str) -> dict[str, str]:
    return {
        "uri": f"sqlite:///{folder}/a%20b.db",  # a percent sign, as passwords in URIs have them
        "admin-username": ADMIN[0],
        "admin-password": ADMIN[1],
        "flask-secret-key": "anything",
        "runs-username": RUNS[0],
        "runs-password": password,
    }


def migrate(folder: Path, password: str) -> str:
    done = subprocess.run(
        command("Job"),
        env=environment("Job", folder, secrets(folder, password)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    migrate(folder, "a password of before")
    migrate(folder, RUNS[1])  # the Secret has changed meanwhile
    port = free_port()
    changes = {"--host": "127.0.0.1", "--port": port, "--artifacts-destination": folder / "a"}
    changes["--workers"] = 1
    arguments = [
        f"{flag}={changes.get(flag, value)}"
        for flag, _, value in (each.partition("=") for each in container("Deployment")["args"])
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command("Deployment"), *arguments],
            env=environment("Deployment", folder, secrets(folder, RUNS[1])),
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + DEADLINE_S
        while answer(f"{url}/health") != 200:
            text = (folder / "log").read_text()
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def answer(
    url: str,
    user: tuple[str, str] | None = None,
    host: str | None = None,
    body: dict[str, str] | None = None,
) -> int:
    """The HTTP status, 0 where nobody listens; with a body it is a POST."""
    headers = {"Content-Type": "application/json", **({"Host": host} if host else {})}
    data = json.dumps(body).encode() if body else None
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
USERS = "/api/2.0/mlflow/users/create"


def test_server_refuses_who_has_no_password_and_takes_the_secrets_users(server: str) -> None:
    assert answer(server + SEARCH) == 401
    assert answer(server + SEARCH, (RUNS[0], "a password of before")) == 401
    assert answer(server + SEARCH, RUNS) == 200
    assert answer(server + SEARCH, ADMIN) == 200


def test_runs_user_is_no_administrator(server: str) -> None:
    new = {"username": "new", "password": "a password of the new"}
    assert answer(server + USERS, RUNS, body=new) == 403
    assert answer(server + USERS, ADMIN, body=new) == 200


def test_server_answers_under_its_services_names_and_no_other(server: str) -> None:
    for host in ("demo-orchestrator-mlflow:5000", "demo-orchestrator-mlflow.training.svc:5000"):
        assert answer(server + SEARCH, RUNS, host) == 200
    assert answer(server + SEARCH, RUNS, "elsewhere.example.org") == 403
    assert answer(server + "/health", host="10.1.2.3:5000") == 200  # as the node's probes ask


def test_runs_user_tracks_a_run_and_its_artifacts(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", RUNS[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", RUNS[1])
    client = mlflow.MlflowClient(server)
    run = client.create_run(client.create_experiment("vgan"))
    client.log_metric(run.info.run_id, "train/g_loss", 1.5, step=3)
    client.log_text(run.info.run_id, "hello", "note.txt")
    assert client.get_run(run.info.run_id).data.metrics == {"train/g_loss": 1.5}
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["note.txt"]
