"""A cluster of one node whose pods run, for all tests of this folder: `make test-pods`."""

from collections.abc import Iterator

import pytest

from tests.helm.manifests import CRDS
from tests.kubernetes.cluster import at_work, load_crds
from tests.kubernetes.person import HELM, Person
from tests.kubernetes.pods import machine
from tests.kubernetes.pods.operator import Operator
from tests.kubernetes.server import ControlPlane, what_is_missing


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """KubeRay's stand-in, of a cluster that this process's commands can speak to."""
    if missing := what_is_missing() or machine.why_not():
        pytest.skip(missing)
    if not HELM.exists():
        pytest.skip(f"no {HELM}: make var/tools/helm")
    if not CRDS.exists():
        pytest.skip(f"no KubeRay CRDs in {CRDS}")
    folder = tmp_path_factory.mktemp("pods")
    with (
        machine.Machine(folder / "node") as node,
        node.joined(),
        ControlPlane(folder / "plane", address=machine.ADDRESS) as plane,
    ):
        node.start(plane.api(), plane.kubeconfig("controllers"))
        made = Operator(plane.api(), node, Person(plane, folder / "home"))
        load_crds(made.person)
        try:
            with at_work(made):
                yield made
        finally:
            made.person.end()
        assert made.complaints == set()
