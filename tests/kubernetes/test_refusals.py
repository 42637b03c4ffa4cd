"""What is wrong is refused: by the chart before anything is sent, by the server when it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.manifests import changed, example, only, render
from tests.helm.test_values import CIDRS
from tests.kubernetes.api import until
from tests.kubernetes.cluster import Cluster

pytest.importorskip("helm_python", reason="no wheel for this machine: rendering needs Linux x86_64")
EKS = example("eks-spot-64gpu")
CLUSTER, JOB = only(render(EKS), "RayCluster"), only(render(EKS), "RayJob", "-vgan")
GROUP = "spec__workerGroupSpecs__0"
POD = f"{GROUP}__template__spec"
Case = tuple[dict[str, Any], str, str]  # what is changed, the field and the reason told
WRONG_CLUSTERS: dict[str, Case] = {
    "number as text": ({f"{GROUP}__replicas": "three"}, "replicas", "integer"),
    "fraction of a pod": ({f"{GROUP}__maxReplicas": 1.5}, "maxReplicas", "integer"),
    "groups that are no list": ({"spec__workerGroupSpecs": {}}, "workerGroupSpecs", "array"),
    "switch as text": (
        {"spec__enableInTreeAutoscaling": "yes"},
        "enableInTreeAutoscaling",
        "boolean",
    ),
    "unknown way in": (
        {"spec__authOptions__mode": "none"},
        "authOptions.mode",
        "Unsupported value",
    ),
    "unknown autoscaler": (
        {"spec__autoscalerOptions__version": "v3"},
        "version",
        "Unsupported value",
    ),
    "parameter as number": (
        {"spec__headGroupSpec__rayStartParams": {"num-cpus": 0}},
        "rayStartParams",
        "string",
    ),
    "no head": ({"spec__headGroupSpec": None}, "headGroupSpec", "Required"),
    "memory that is none": (
        {f"{POD}__containers__0__resources__limits": {"memory": "much"}},
        "containers.resources.limits.memory",
        "should match",
    ),
    "user as text": ({f"{POD}__securityContext__runAsUser": "ray"}, "runAsUser", "integer"),
}
WRONG_JOBS: dict[str, Case] = {
    "tries as text": ({"spec__backoffLimit": "often"}, "backoffLimit", "integer"),
    "command as list": ({"spec__entrypoint": ["python"]}, "entrypoint", "string"),
    "switch as text": (
        {"spec__shutdownAfterJobFinishes": "no"},
        "shutdownAfterJobFinishes",
        "boolean",
    ),
    "deadline as text": ({"spec__activeDeadlineSeconds": "1h"}, "activeDeadlineSeconds", "integer"),
    "no containers": (
        {"spec__submitterPodTemplate__spec__containers": None},
        "submitterPodTemplate.spec.containers",
        "Required",
    ),
}
WRONG_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "a tag that moves": ({"image__tag": "latest"}, "tag"),
    "an unknown value": ({"workerz": []}, "workerz"),
    "number as text": ({"workers__0__max": "8"}, "max"),
    "least over most": ({"workers__0__min": 9}, "min 9 is more than max 8"),
    "a head on spot": (
        {"ray__head__nodeSelector": {"karpenter.sh/capacity-type": "spot"}},
        "nodeSelector",
    ),
    "less memory than it shares": ({"workers__0__memory": "10Gi"}, "sharedMemoryGiB 256"),
    "no image": ({"image": {"repository": ""}}, "image"),
    "a secret as variable": ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "AWS_SECRET_ACCESS_KEY"),
    "an address that is none": ({"network__dnsCidrs": ["10.0.0.0/33"]}, "network.dnsCidrs.0"),
    "a label that is none": (
        {"workers__0__nodeSelector": {"a": "x y"}},
        "workers.0.nodeSelector.a",
    ),
    "a toleration that is none": ({"workers__0__tolerations": [{"value": "x"}]}, "key"),
    "a variable of the chart's": ({"env": {"HOME": "/x"}}, "HOME"),
    "a job of no group": ({"jobs__0__groups": ["none"]}, "group none is none of workers"),
    "a job that begins anew": ({"jobs__0__arguments": ["--fresh"]}, "jobs.0.arguments.0"),
}


@pytest.fixture(scope="module")
def empty(_cluster: Cluster) -> Iterator[str]:
    """A namespace that stays empty, because all that is sent to it is refused."""
    with _cluster.namespace() as name:
        yield name


def send(cluster: Cluster, namespace: str, manifest: dict[str, Any]) -> tuple[int, str]:
    """By kubectl, which is told not to look at it itself."""
    manifest["metadata"]["namespace"] = namespace
    path = cluster.home / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    done = cluster.run("kubectl", "create", "--validate=false", f"--filename={path}")
    return done.returncode, done.stderr


@pytest.mark.parametrize("case", WRONG_CLUSTERS)
def test_server_refuses_a_raycluster_that_is_wrong(cluster: Cluster, empty: str, case: str) -> None:
    changes, field, reason = WRONG_CLUSTERS[case]
    status, error = send(cluster, empty, changed(CLUSTER, **changes))
    assert status == 1
    assert field in error
    assert reason in error
    assert cluster.api.list("rayclusters", namespace=empty) == []


@pytest.mark.parametrize("case", WRONG_JOBS)
def test_server_refuses_a_rayjob_that_is_wrong(cluster: Cluster, empty: str, case: str) -> None:
    changes, field, reason = WRONG_JOBS[case]
    status, error = send(cluster, empty, changed(JOB, **changes))
    assert status == 1
    assert field in error
    assert reason in error
    assert cluster.api.list("rayjobs", namespace=empty) == []


def test_server_takes_what_the_wrong_ones_were_made_of(cluster: Cluster, namespace: str) -> None:
    assert send(cluster, namespace, changed(CLUSTER)) == (0, "")
    assert send(cluster, namespace, changed(JOB)) == (0, "")


def install(cluster: Cluster, namespace: str, values: dict[str, Any]) -> tuple[int, str]:
    """By our command; its status and what it says."""
    path = Path(cluster.home / "wrong.yaml")
    path.write_text(yaml.safe_dump(values))
    done = cluster.ours("install", "--values", str(path), "--namespace", namespace)
    return done.returncode, done.stderr


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_wrong_value_ends_install_with_2_and_the_server_sees_no_write(
    cluster: Cluster, empty: str, case: str
) -> None:
    changes, told = WRONG_VALUES[case]
    before = cluster.plane.writes()
    status, error = install(cluster, empty, changed(EKS, **changes))
    assert (status, error.count("\n")) == (2, 1)
    assert told in error
    assert cluster.plane.writes() == before


def test_values_at_the_edge_are_taken_by_the_server(cluster: Cluster, namespace: str) -> None:
    taint = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}
    edge: dict[str, Any] = {
        "jobs": [],
        "network__dnsCidrs": [*CIDRS],
        "workers__0__nodeSelector": {"a.b/C_d.e": "X-y_z.0", "b": ""},
        "workers__0__tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b"}, taint],
        "workers__0__max": 2**31 - 1,
        "cache__sizeGiB": 2**31 - 1,
        "monitoring__labels": {"a": "a" * 63},
        "serviceAccount__annotations": {"a.b/c": "arn:aws: x"},
    }
    assert install(cluster, namespace, changed(EKS, **edge)) == (0, "")
    ray = "training-orchestrator"

    def is_up() -> bool:
        found = cluster.api.get("rayclusters", namespace, ray) or {}
        return bool(found.get("status", {}).get("state") == "ready")

    until(is_up, "a pod of each group", otherwise=lambda: str(cluster.kuberay.complaints))


def test_wrong_value_leaves_the_release_as_it_is(cluster: Cluster, namespace: str) -> None:
    assert install(cluster, namespace, EKS) == (0, "")
    before = cluster.plane.writes()
    assert before
    assert install(cluster, namespace, changed(EKS, workers__0__min=9))[0] == 2
    assert cluster.plane.writes() == before
    words = ["submit", "vgan_golf", "--groups", "none", "--namespace", namespace]
    refused = cluster.ours(*words)
    assert refused.returncode == 2
    assert "group none is none of workers" in refused.stderr
    assert cluster.plane.writes() == before


def test_release_that_is_nowhere_is_not_taken_down(cluster: Cluster, empty: str) -> None:
    before = cluster.plane.writes()
    done = cluster.ours("down", "--namespace", empty)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not found" in done.stderr
    assert cluster.plane.writes() == before
