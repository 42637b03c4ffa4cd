"""The ten commands of docs/kubernetes.md, as they stand there, as far as this ground goes.

Not run: the first three. KubeRay's chart and its operator are not to be had, its CRDs and a
stand-in are there instead; and there is neither Docker nor a registry.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helm.manifests import CHART, ROOT
from tests.kubernetes.cluster import SECRETS, Cluster
from tests.kubernetes.node import Play

TEXT = (ROOT / "docs" / "kubernetes.md").read_text()
NOT_RUN = ("helm install kuberay-operator ", "docker build ", "docker push ")


def block(heading: str) -> list[str]:
    """The lines of the first code block below a heading."""
    below = TEXT.partition(f"\n## {heading}\n")[2]
    found = re.search(r"^```\n(.*?)^```$", below, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1].splitlines()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """The folder of who follows the page: site.yaml, and the two files of secrets."""
    example = (CHART / "examples" / "eks-spot-64gpu.yaml").read_text()
    site = re.sub(r"^jobs:\n(?:  .*\n)+", "", example, flags=re.MULTILINE)
    assert site != example
    (tmp_path / "site.yaml").write_text(site)
    for name in ("mlflow-database", "mlflow-users"):
        lines = [f"{key}={value}\n" for key, value in SECRETS[name].items()]
        (tmp_path / f"{name}.env").write_text("".join(lines))
    yield tmp_path
    if cluster.api.get("namespaces", "", "training"):
        cluster.clear("training")


def test_ten_commands_lead_from_an_empty_cluster_to_a_run(cluster: Cluster, site: Path) -> None:
    commands = block("From an empty cluster to a run, in ten commands")
    assert len(commands) == 10
    assert all(map(str.startswith, commands, NOT_RUN))
    cluster.kuberay.play("orchestrator.ingest", Play.ending(0, "4 shards"))
    cluster.kuberay.play("orchestrator.run", Play.ending(0, "loss 0.9"))
    told = [_told(cluster, site, command) for command in commands[len(NOT_RUN) :]]
    assert told[0] == "namespace/training created\n"
    assert told[1] == "namespace/training labeled\n"
    assert told[4].startswith('Release "training" does not exist. Installing it now.')
    assert told[5].splitlines()[-1] == "4 shards"
    assert told[6].splitlines()[-1] == "loss 0.9"
    jobs = cluster.api.list("rayjobs", namespace="training")
    assert [each["status"]["jobStatus"] for each in jobs] == ["SUCCEEDED"] * 2
    entrypoints = {each["spec"]["entrypoint"] for each in jobs}
    assert "python -m orchestrator.ingest s3://BUCKET/raw s3://SHARDS/flickr" in entrypoints

    upgrade, history, rollback = block("Upgrade and rollback")
    _told(cluster, site, upgrade)
    assert len(_told(cluster, site, history).splitlines()) == 3
    assert "Rollback was a success" in _told(cluster, site, rollback.replace("REVISION", "1"))


def _told(cluster: Cluster, site: Path, command: str) -> str:
    """What a line of the page prints, in a shell; it ends with 0."""
    done = cluster.run("sh", "-c", command, cwd=site)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout
