"""A whole cluster to test against: the real control plane, KubeRay's CRDs, and the stand-ins."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.helm.manifests import CRDS
from tests.kubernetes.api import UnreadyError, until
from tests.kubernetes.kuberay import KubeRay, Played
from tests.kubernetes.node import Node
from tests.kubernetes.person import Person
from tests.kubernetes.server import ControlPlane

SECRETS = {
    "mlflow-database": {"uri": "postgresql+psycopg2://a:b@database:5432/mlflow", "password": "b"},
    "mlflow-users": {
        "admin-username": "admin",
        "admin-password": "a password of admin",
        "flask-secret-key": "0123456789abcdef",
        "runs-username": "runs",
        "runs-password": "a password of runs",
    },
    "s3-keys": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    "gcs-hmac": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    "redis": {"redis-password": "a password of redis"},
    "ray-token": {"auth_token": "a token of ray"},
    "mlflow-tls": {"tls.crt": "", "tls.key": ""},
    "registry": {".dockerconfigjson": "{}"},
}


class Cluster(Person):
    """api: a client of the stand-ins' user. node, kuberay: the stand-ins."""

    def __init__(self, plane: ControlPlane, home: Path) -> None:
        super().__init__(plane, home)
        self.api = plane.api()
        self.node = Node(plane.api(), tls=plane.folder / "tls")
        self.kuberay = Played(plane.api(), self.node)

    @contextmanager
    def namespace(self, name: str = "") -> Iterator[str]:
        """A new one with all Secrets that the examples name; deleted at the end."""
        name = name or f"n-{uuid.uuid4().hex[:8]}"
        self.api.create("namespaces", "", {"metadata": {"name": name}})
        try:
            for secret, texts in SECRETS.items():
                body = {"metadata": {"name": secret}, "stringData": texts}
                self.api.create("secrets", name, body)
            body = {"metadata": {"name": "intern-ca"}, "data": {"ca.crt": "a certificate"}}
            self.api.create("configmaps", name, body)
            until(lambda: self.api.get("serviceaccounts", name, "default"), "its account")
            yield name
        finally:
            self.clear(name)

    def clear(self, namespace: str) -> None:
        """Has a namespace deleted with all that is in it, and what the chart has in none."""
        for each in self.api.list("priorityclasses", labels="app.kubernetes.io/name=orchestrator"):
            self.api.delete("priorityclasses", "", each["metadata"]["name"])
        self.api.delete("namespaces", "", namespace)

    def scale(self, namespace: str) -> int:
        """Adds a worker to the cluster that stays as Ray's autoscaler does; how many it has now."""
        name = "training-orchestrator"
        found = self.api.get("rayclusters", namespace, name)
        assert found
        more: int = found["spec"]["workerGroupSpecs"][0]["replicas"] + 1
        change = [{"op": "replace", "path": "/spec/workerGroupSpecs/0/replicas", "value": more}]
        where = [f"--namespace={namespace}", "--type=json", f"--patch={json.dumps(change)}"]
        done = self.run("kubectl", "patch", "rayclusters.ray.io", name, *where)
        assert done.returncode == 0, done.stderr
        return more

    def others(self) -> list[str]:
        """Namespaces that are not the server's own."""
        names = [each["metadata"]["name"] for each in self.api.list("namespaces")]
        return [name for name in names if name != "default" and not name.startswith("kube-")]


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """One that is up, with KubeRay's CRDs and the stand-ins at work."""
    with ControlPlane(folder / "plane") as plane:
        here = Cluster(plane, folder / "home")
        load_crds(here)
        with here.node.listening(), at_work(here.node, here.kuberay):
            yield here
            until(lambda: here.others() == [], "the end of every namespace", seconds=180)


def load_crds(here: Person) -> None:
    """KubeRay's, by `kubectl create`: they are too large for `kubectl apply`."""
    files = [f"--filename={path}" for path in sorted(CRDS.glob("ray.io_*.yaml"))]
    done = here.run("kubectl", "create", "--validate=false", *files)
    assert done.returncode == 0, done.stderr
    done = here.run(
        "kubectl", "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def at_work(*ones: Node | KubeRay) -> Iterator[None]:
    """All step on in a thread; what goes wrong there is one of their complaints."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.1):
            for one in ones:
                try:
                    one.step()
                except (requests.RequestException, UnreadyError):
                    pass  # the server restarts
                except Exception as error:
                    one.complaints.add(repr(error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
