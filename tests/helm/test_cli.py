"""Helm 3.10's own command agrees with the SDK of Helm 4 that the other tests render by."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.manifests import (
    CHART,
    EXAMPLES,
    NAMESPACE,
    RELEASE,
    ROOT,
    example,
    of_kind,
    render,
)

helm = pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
FOUND = [os.environ.get("HELM"), str(ROOT / "var" / "tools" / "helm"), shutil.which("helm")]
HELM = next((path for path in FOUND if path and Path(path).exists()), "")
API = "--api-versions=monitoring.coreos.com/v1"
needs_command = pytest.mark.skipif(
    not HELM, reason="no helm command; `make var/tools/helm` gets it"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def values_of(name: str) -> str:
    return f"--values={CHART}/examples/{name}.yaml"


def by_name(manifests: list[Any]) -> dict[tuple[str, str], Any]:
    return {(m["kind"], m["metadata"]["name"]): m for m in manifests if m}


@pytest.mark.parametrize("name", EXAMPLES)
def test_sdk_of_helm_4_finds_nothing_to_warn_of(name: str) -> None:
    report = helm.lint(CHART, example(name), strict=True, kube_version="v1.33.0")
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@needs_command
@pytest.mark.parametrize("name", EXAMPLES)
def test_command_lints_and_renders_the_same_manifests(name: str) -> None:
    linted = run("lint", str(CHART), values_of(name), "--strict")
    assert linted.returncode == 0, linted.stdout
    shown = run("template", RELEASE, str(CHART), "--namespace", NAMESPACE, values_of(name))
    assert shown.returncode == 0, shown.stderr
    assert by_name(list(yaml.safe_load_all(shown.stdout))) == by_name(render(example(name)))


@needs_command
def test_command_renders_monitoring_where_the_cluster_has_it() -> None:
    name = "eks-spot-64gpu"
    shown = run("template", RELEASE, str(CHART), "-n", NAMESPACE, values_of(name), API)
    manifests = list(yaml.safe_load_all(shown.stdout))
    assert by_name(manifests) == by_name(render(example(name), all_apis=True))
    assert len(of_kind(manifests, "ServiceMonitor")) == 1


@needs_command
def test_command_refuses_a_wrong_value() -> None:
    refused = run("template", str(CHART), values_of("eks-spot-64gpu"), "--set", "image.tag=latest")
    assert refused.returncode != 0
    assert "tag" in refused.stderr
