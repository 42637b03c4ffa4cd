"""What the chart's service accounts may do, as the server's RBAC says it.

The chart binds no right. KubeRay binds the autoscaler's to the head's account; its stand-in does
so by the rules of KubeRay 1.7: what is shown is which account has them, and where they end.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.helm.manifests import CHART, changed, example
from tests.kubernetes.api import until
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.kuberay import RULES

AUTOSCALER = {
    (verb, group, resource)
    for rule in RULES
    for verb in rule["verbs"]
    for group in rule["apiGroups"]
    for resource in rule["resources"]
}
ACCOUNTS = ("ray-head", "ray-worker", "mlflow")
FORBIDDEN = (
    "get secrets",
    "list secrets",
    "get configmaps",
    "create pods",
    "delete pods",
    "create pods --subresource=exec",
    "get pods --subresource=log",
    "patch pods --subresource=ephemeralcontainers",
    "create jobs.batch",
    "create rayjobs.ray.io",
    "list rayclusters.ray.io",
    "create rayclusters.ray.io",
    "update deployments.apps",
    "create serviceaccounts --subresource=token",
    "impersonate serviceaccounts",
    "create rolebindings.rbac.authorization.k8s.io",
    "escalate roles.rbac.authorization.k8s.io",
    "delete networkpolicies.networking.k8s.io",
)


@dataclass(frozen=True)
class Installed:
    """A release with an autoscaler. other: a namespace that is not its own."""

    cluster: Cluster
    namespace: str
    other: str

    def user(self, account: str) -> str:
        """Its name for RBAC."""
        return f"system:serviceaccount:{self.namespace}:training-orchestrator-{account}"

    def may(self, account: str, what: str, *where: str) -> bool:
        """What `kubectl auth can-i` answers, asked as the account."""
        asked = ["kubectl", "auth", "can-i", *what.split(), f"--as={self.user(account)}", *where]
        answer = self.cluster.run(*asked)
        assert answer.stdout.strip() in ("yes", "no"), answer.stderr
        return answer.stdout.strip() == "yes"

    def rules(self, user: str, namespace: str) -> set[tuple[str, str, str]]:
        """(verb, group, resource) of all that `kubectl auth can-i --list` is made of."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        path = self.cluster.home / "review.yaml"
        path.write_text(yaml.safe_dump(review))
        asked = ["kubectl", "create", f"--filename={path}", "--output=json"]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}"]
        groups.append("system:authenticated")
        as_user = [f"--as={user}", *(f"--as-group={group}" for group in groups)]
        done = self.cluster.run(*asked, *as_user)
        assert done.returncode == 0, done.stderr
        status = json.loads(done.stdout)["status"]
        assert not status["incomplete"]
        assert not any("resourceNames" in rule for rule in status["resourceRules"])
        return {
            (verb, group, resource)
            for rule in status["resourceRules"]
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }


@pytest.fixture(scope="module")
def installed(_cluster: Cluster) -> Iterator[Installed]:
    with _cluster.namespace() as namespace, _cluster.namespace() as other:
        values = _cluster.home / "rights.yaml"
        values.write_text(yaml.safe_dump(changed(example("eks-spot-64gpu"), jobs=[])))
        words = ["helm", "install", "training", str(CHART), f"--values={values}", "--wait"]
        done = _cluster.run(*words, f"--namespace={namespace}")
        assert done.returncode == 0, done.stderr
        until(lambda: _cluster.api.list("rolebindings", namespace=namespace), "KubeRay's rights")
        yield Installed(_cluster, namespace, other)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_account_has_exactly_the_rights_of_its_part(installed: Installed, account: str) -> None:
    anyone = f"system:serviceaccount:{installed.namespace}:default"
    everybody = installed.rules(anyone, installed.namespace)
    extra = AUTOSCALER if account == "ray-head" else set()
    assert installed.rules(installed.user(account), installed.namespace) - everybody == extra
    assert installed.rules(installed.user(account), installed.other) == everybody
    assert all(resource.startswith("selfsubject") for _, _, resource in everybody)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_account_may_do_nothing_else_anywhere(installed: Installed, account: str) -> None:
    here, other = f"--namespace={installed.namespace}", f"--namespace={installed.other}"
    assert [what for what in FORBIDDEN if installed.may(account, what, here)] == []
    for where in (other, "--all-namespaces"):
        assert not installed.may(account, "list pods", where)
        assert not installed.may(account, "patch pods", where)
        assert not installed.may(account, "get secrets", where)
    for what in ("list nodes", "list namespaces", "create clusterrolebindings"):
        assert not installed.may(account, what, "--all-namespaces")
    assert installed.may(account, "patch pods", here) == (account == "ray-head")
    assert installed.may(account, "patch rayclusters.ray.io", here) == (account == "ray-head")


def test_heads_token_lists_pods_and_is_refused_secrets(installed: Installed) -> None:
    here = f"--namespace={installed.namespace}"
    made = installed.cluster.run(
        "kubectl", "create", "token", "training-orchestrator-ray-head", here
    )
    token = made.stdout.strip()
    pods = installed.cluster.run("kubectl", "get", "pods", here, "--output=name", token=token)
    assert "pod/training-orchestrator-headgroup-" in pods.stdout
    for refused in (["secrets", here], ["pods", f"--namespace={installed.other}"]):
        done = installed.cluster.run("kubectl", "get", *refused, token=token)
        assert done.returncode == 1
        assert "Forbidden" in done.stderr


def test_pods_get_a_token_where_an_autoscaler_needs_it_and_nowhere_else(
    installed: Installed,
) -> None:
    mounted = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in installed.cluster.api.list("pods", namespace=installed.namespace)
        for container in pod["spec"]["containers"]
        for mount in container["volumeMounts"]
        if mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    }
    assert mounted == {"ray-head"}
