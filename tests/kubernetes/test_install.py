"""`python -m cluster.kubernetes install | status | down` against a real API server."""

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.manifests import CHART, changed, example
from tests.kubernetes.api import until
from tests.kubernetes.cluster import SECRETS, Cluster
from tests.kubernetes.person import Person
from tests.kubernetes.server import ControlPlane

LAPTOP = f"--values={CHART}/examples/laptop-kind.yaml"


def running(cluster: Cluster, namespace: str) -> list[str]:
    """All that runs, or makes something run, or leads to it."""
    kinds = ("rayjobs", "rayclusters", "deployments", "statefulsets", "jobs", "pods", "services")
    found = [(kind, cluster.api.list(kind, namespace=namespace)) for kind in kinds]
    return [f"{kind}/{each['metadata']['name']}" for kind, items in found for each in items]


def test_release_is_installed_shown_upgraded_and_taken_down(
    cluster: Cluster, namespace: str
) -> None:
    here = f"--namespace={namespace}"
    installed = cluster.ours("install", LAPTOP, here)
    assert (installed.returncode, installed.stderr) == (0, "")
    assert "kubectl label namespace" in installed.stdout, "the chart's notes"
    until(lambda: cluster.api.list("pods", namespace=namespace, labels="ray.io/cluster"), "Ray")

    shown = cluster.ours("status", here)
    assert shown.returncode == 0
    for part in ("STATUS: deployed", "deployment.apps/training-orchestrator-mlflow", "1/1"):
        assert part in shown.stdout
    assert "raycluster.ray.io/training-orchestrator" in shown.stdout

    assert cluster.ours("install", LAPTOP, here).returncode == 0
    assert "REVISION: 2" in cluster.ours("status", here).stdout

    ended = cluster.ours("down", here)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"Secrets, volumes and the namespace {namespace} are left" in ended.stdout
    until(lambda: running(cluster, namespace) == [], "the end of all that ran")
    again = cluster.ours("down", here)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def test_workers_that_the_autoscaler_brought_outlive_an_upgrade(
    cluster: Cluster, namespace: str
) -> None:
    here = f"--namespace={namespace}"
    assert cluster.ours("install", LAPTOP, here).returncode == 0
    replicas = cluster.scale(namespace)
    assert cluster.ours("install", LAPTOP, here).returncode == 0
    found = cluster.api.get("rayclusters", namespace, "training-orchestrator")
    assert found["spec"]["workerGroupSpecs"][0]["replicas"] == replicas


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("laptop-kind", {"trial__postgresql__sizeGiB": 6}),
        ("eks-spot-64gpu", {"priorityClass__value": 2000}),
    ],
)
def test_value_that_cannot_change_is_refused_and_the_old_one_is_taken_again(
    cluster: Cluster, namespace: str, name: str, change: dict[str, Any]
) -> None:
    def install(values: dict[str, Any]) -> tuple[int, str]:
        path = cluster.home / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        done = cluster.ours("install", f"--values={path}", f"--namespace={namespace}")
        return done.returncode, done.stderr

    assert install(example(name)) == (0, "")
    status, error = install(changed(example(name), **change))
    assert (status, error.count("\n")) == (1, 1)
    assert "orbidden" in error
    assert install(example(name)) == (0, "")


@pytest.fixture
def waiting(cluster: Cluster, namespace: str) -> str:
    """A namespace without the Secret that the migration needs, which therefore waits."""
    cluster.api.delete("secrets", namespace, "mlflow-users")
    return namespace


def repair(cluster: Cluster, namespace: str) -> None:
    """What was missing is there."""
    body = {"metadata": {"name": "mlflow-users"}, "stringData": SECRETS["mlflow-users"]}
    cluster.api.create("secrets", namespace, body)


def test_install_that_is_interrupted_is_taken_up_by_the_same_command(
    cluster: Cluster, waiting: str
) -> None:
    words = ["install", f"--values={CHART}/examples/eks-spot-64gpu.yaml"]
    words.append(f"--namespace={waiting}")
    process = cluster.begin(*words)
    until(lambda: cluster.api.list("jobs", namespace=waiting), "the migration")
    process.interrupt()
    assert process.wait() == 130
    assert process.errors.splitlines()[-1].startswith("interrupted; ")
    repair(cluster, waiting)
    again = cluster.ours(*words)
    assert (again.returncode, again.stderr) == (0, "")


def test_install_whose_helm_was_killed_says_what_to_do(cluster: Cluster, waiting: str) -> None:
    words = ["install", f"--values={CHART}/examples/eks-spot-64gpu.yaml"]
    words.append(f"--namespace={waiting}")
    process = cluster.begin(*words)
    until(lambda: cluster.api.list("jobs", namespace=waiting), "the migration")
    process.interrupt(signal.SIGKILL)
    process.wait()
    repair(cluster, waiting)
    refused = cluster.ours(*words)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "another operation" in refused.stderr
    way_out = refused.stderr.strip().rpartition(": ")[2].split()
    assert way_out[0] == "helm"
    assert cluster.run(*way_out).returncode == 0
    assert cluster.ours(*words).returncode == 0


def test_cluster_without_kuberay_is_told_so_and_gets_nothing(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane") as plane:
        person = Person(plane, tmp_path / "home")
        done = person.ours("install", LAPTOP)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "error: the cluster knows no RayJob: install KubeRay, see docs/kubernetes.md"
        ]
        assert plane.writes() == []
        plane.kill_api()
        gone = person.ours("install", LAPTOP)
        assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
        assert "refused" in gone.stderr
