"""A real API server for all tests of this folder, which `make test-kubernetes` runs."""

from collections.abc import Iterator

import pytest

from tests.helm.manifests import CRDS
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.cluster import cluster as make_cluster
from tests.kubernetes.person import HELM
from tests.kubernetes.server import what_is_missing


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := what_is_missing():
        pytest.skip(missing)
    if not HELM.exists():
        pytest.skip(f"no {HELM}: make var/tools/helm")
    if not CRDS.exists():
        pytest.skip(f"no KubeRay CRDs in {CRDS}")
    with make_cluster(tmp_path_factory.mktemp("kubernetes")) as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whose server has taken every pod that the chart's templates led to."""
    yield _cluster
    _cluster.end()
    _cluster.node.failing.clear()
    complaints = _cluster.kuberay.complaints | _cluster.node.complaints
    _cluster.kuberay.complaints.clear()
    _cluster.node.complaints.clear()
    assert complaints == set()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new one, with the Secrets that the examples name."""
    with cluster.namespace() as name:
        yield name
