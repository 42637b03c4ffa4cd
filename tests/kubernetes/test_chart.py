"""Every example on a real API server: installed, upgraded, rolled back, uninstalled.

What this server does not have is left out by the chart: PodDisruptionBudgets (policy/v1 came with
Kubernetes 1.21), ServiceMonitors and PrometheusRules (Prometheus's operator brings them).
"""

import json
from collections.abc import Callable
from typing import Any, Protocol

import pytest
import yaml

from tests.helm.manifests import CHART, EXAMPLES, changed, example, render
from tests.kubernetes.api import Object, until
from tests.kubernetes.cluster import Cluster

sdk = pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
RELEASE = "training"
VOLATILE = (
    "resourceVersion",
    "generation",
    "managedFields",
    "uid",
    "creationTimestamp",
    "finalizers",
)


class Helm(Protocol):
    """What Helm does to the one release of a namespace."""

    def install(self, values: Object) -> None:
        """Installs, and waits until it is ready."""

    def upgrade(self, values: Object) -> None:
        """Upgrades, and waits."""

    def rollback(self) -> None:
        """To the first revision."""

    def uninstall(self) -> None:
        """And waits until all is gone that it sent."""


class Helm3:
    """Helm 3.10's command."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._where = [f"--namespace={namespace}", "--wait", "--timeout=60s"]
        self._values = cluster.home / f"{namespace}.yaml"

    def _run(self, *words: str) -> None:
        done = self._cluster.run("helm", *words, *self._where)
        assert done.returncode == 0, done.stderr

    def _send(self, verb: str, values: Object) -> None:
        self._values.write_text(yaml.safe_dump(values))
        self._run(verb, RELEASE, str(CHART), f"--values={self._values}")

    def install(self, values: Object) -> None:
        self._send("install", values)

    def upgrade(self, values: Object) -> None:
        self._send("upgrade", values)

    def rollback(self) -> None:
        self._run("rollback", RELEASE, "1")

    def uninstall(self) -> None:
        self._run("uninstall", RELEASE)


class Helm4:
    """Helm 4's own library."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        path = cluster.plane.kubeconfig("person")
        self._config = sdk.Config(kubeconfig_path=path, namespace=namespace)
        self._how: dict[str, Any] = {"timeout": 60, "wait": "watcher"}
        self._namespace = namespace

    def install(self, values: Object) -> None:
        self._config.install(CHART, RELEASE, values, namespace=self._namespace, **self._how)

    def upgrade(self, values: Object) -> None:
        self._config.upgrade(CHART, RELEASE, values, namespace=self._namespace, **self._how)

    def rollback(self) -> None:
        self._config.rollback(RELEASE, version=1, **self._how)

    def uninstall(self) -> None:
        self._config.uninstall(RELEASE, **self._how)


def everything(cluster: Cluster, namespace: str) -> dict[str, Object]:
    """{kind/name: the object} of a namespace, but events and what Helm keeps for itself."""
    listed = cluster.run(
        "kubectl", "api-resources", "--namespaced", "--verbs=list", "--output=name"
    )
    kinds = [kind for kind in listed.stdout.split() if not kind.startswith("events")]
    found = cluster.run(
        "kubectl", "get", ",".join(kinds), f"--namespace={namespace}", "--output=json"
    )
    assert found.returncode == 0, found.stderr
    return {
        f"{each['kind']}/{each['metadata']['name']}": each
        for each in json.loads(found.stdout)["items"]
        if each.get("type") != "helm.sh/release.v1"
    }


def sent(cluster: Cluster, namespace: str) -> dict[str, Object]:
    """{kind/name: what was asked for} of what the chart has in a namespace, hooks aside."""
    out = {}
    for name, each in everything(cluster, namespace).items():
        annotations = each["metadata"].get("annotations", {})
        is_ours = "meta.helm.sh/release-name" in annotations
        if is_ours and "ownerReferences" not in each["metadata"]:
            for key in VOLATILE:
                each["metadata"].pop(key, None)
            annotations.pop("deployment.kubernetes.io/revision", None)
            out[name] = {key: value for key, value in each.items() if key != "status"}
    return out


def names(manifests: list[Object]) -> set[str]:
    """Of what this server is to have, hooks and what belongs to no namespace aside."""
    return {
        f"{each['kind']}/{each['metadata']['name']}"
        for each in manifests
        if "helm.sh/hook" not in each["metadata"].get("annotations", {})
        and each["kind"] not in ("PriorityClass", "PodDisruptionBudget")
    }


@pytest.mark.parametrize("helm", [Helm3, Helm4])
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_installed_upgraded_rolled_back_and_leaves_only_volumes(
    cluster: Cluster, namespace: str, name: str, helm: Callable[[Cluster, str], Helm]
) -> None:
    values, release = example(name), helm(cluster, namespace)
    other = changed(values, network__dnsNamespace="elsewhere", env={"NOTE": "two"})
    before = everything(cluster, namespace)
    rendered = {True: render(values, release=RELEASE), False: render(other, release=RELEASE)}
    differing = {
        f"{one['kind']}/{one['metadata']['name']}"
        for one, two in zip(rendered[True], rendered[False], strict=True)
        if one != two
    }

    release.install(values)
    first = sent(cluster, namespace)
    assert set(first) == names(rendered[True])
    until_ray_is_up(cluster, namespace)

    release.upgrade(other)
    second = sent(cluster, namespace)
    assert {key for key in first if first[key] != second[key]} == differing
    assert len(differing) >= 2, "the default policy, and a RayCluster or RayJob"

    release.rollback()
    assert sent(cluster, namespace) == first

    release.uninstall()
    volumes = {key for key in everything(cluster, namespace) if key.startswith("PersistentVolumeC")}
    left = until(
        lambda: (now := set(everything(cluster, namespace))) <= set(before) | volumes and now,
        "the end of what belonged to the release",
        seconds=120,  # whoever collects garbage looks twice a minute for kinds that are new
        otherwise=lambda: str(sorted(set(everything(cluster, namespace)) - set(before))),
    )
    assert left == set(before) | volumes
    assert bool(volumes) == (name == "laptop-kind")
    assert cluster.api.list("priorityclasses", labels="app.kubernetes.io/name=orchestrator") == []


def test_helm_4_left_to_itself_is_refused_once_the_autoscaler_has_scaled(
    cluster: Cluster, namespace: str
) -> None:
    """Why `python -m cluster.kubernetes install` has it apply on the client."""
    helm = Helm4(cluster, namespace)
    helm.install(example("laptop-kind"))
    cluster.scale(namespace)
    with pytest.raises(sdk.HelmError, match="conflict"):
        helm.upgrade(example("laptop-kind"))


def until_ray_is_up(cluster: Cluster, namespace: str) -> None:
    """The server has taken a pod of every template of every Ray cluster."""

    def whole() -> bool:
        found = cluster.api.list("rayclusters", namespace=namespace)
        jobs = cluster.api.list("rayjobs", namespace=namespace)
        ready = [each for each in found if each.get("status", {}).get("state") == "ready"]
        ended = [each for each in jobs if each.get("status", {}).get("jobStatus") == "SUCCEEDED"]
        return len(ready) == len(found) > 0 and len(ended) == len(jobs)

    until(whole, "all pods of Ray", otherwise=lambda: str(cluster.kuberay.complaints))


def test_budgets_are_sent_only_where_the_server_has_their_api(
    cluster: Cluster, namespace: str
) -> None:
    values = example("eks-spot-64gpu")
    assert any(each["kind"] == "PodDisruptionBudget" for each in render(values))
    versions = cluster.run("kubectl", "api-versions").stdout.split()
    assert "policy/v1" not in versions, "then this server can be shown budgets too"
    Helm3(cluster, namespace).install(values)
    assert not [each for each in cluster.plane.writes() if "poddisruptionbudgets" in each]


def test_monitoring_is_sent_once_the_server_knows_it(cluster: Cluster, namespace: str) -> None:
    values, release = example("eks-spot-64gpu"), Helm3(cluster, namespace)
    kinds = {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"}
    mine = {f"{kind}/{RELEASE}-orchestrator" for kind in kinds}
    release.install(values)
    assert not mine & set(sent(cluster, namespace))
    names = [f"{plural}.monitoring.coreos.com" for plural in kinds.values()]
    try:
        text = yaml.safe_dump_all(any_crd(kind, plural) for kind, plural in kinds.items())
        path = cluster.home / "monitoring.yaml"
        path.write_text(text)
        assert cluster.run("kubectl", "apply", f"--filename={path}").returncode == 0
        waits = ["wait", "--for=condition=Established", "--timeout=30s", "crd", *names]
        assert cluster.run("kubectl", *waits).returncode == 0
        release.upgrade(values)
        assert mine <= set(sent(cluster, namespace))
        release.uninstall()
    finally:
        cluster.run("kubectl", "delete", "crd", "--ignore-not-found", *names)


def any_crd(kind: str, plural: str) -> Object:
    """A kind of Prometheus's operator, of any shape."""
    shape = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": shape}}
    group = "monitoring.coreos.com"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }
