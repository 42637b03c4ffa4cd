"""The hosts of a test: services that stay for all tests of a file, and a Ray cluster of its own."""

import pytest

from tests.faults.hosts import network as hosts
from tests.faults.hosts import services
from tests.faults.hosts.raylets import SUBMIT, Raylets


@pytest.fixture(scope="module")
def network(site, tmp_path_factory):
    """The network, with S3, MLflow and Redis on it; the dataset is in S3."""
    for why in (hosts.why_not(), services.why_not()):
        if why:
            pytest.skip(why)
    made = hosts.Network()
    try:
        with made.joined():
            services.start(made, tmp_path_factory.mktemp("services"))
            services.upload(site / "shards" / "squares", "shards")
        yield made
    finally:
        made.close()


@pytest.fixture
def settings(network, request, monkeypatch):
    """The variables of every process of the team; the test itself is on the network."""
    name = request.node.name.partition("[")[0].removeprefix("test_")
    settings = services.ENVIRONMENT | {
        "RUNS_ROOT": f"s3://runs/{name}",
        "SHARDS_CACHE": str(network.disk / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with network.joined():
        services.forget_runs()  # of the test before, which have the names of this one's
        yield settings


@pytest.fixture
def raylets(network, settings, tmp_path):
    """A Ray cluster, whose nodes the test starts."""
    made = Raylets(network, tmp_path, settings)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def job(run, settings):
    """Makes a run of two workers that is submitted to the cluster."""

    def make(*, submit=(), **options):
        made = run(workers="2", inside=[*SUBMIT, *submit, "--"], environment=settings, **options)
        made.look_every_s = 0.25  # each look is a request, and there is one core for all
        return made

    return make


@pytest.fixture(scope="session")
def two(once):
    """The outcome of two workers on one host that nothing breaks."""
    return once("two", workers="2")
