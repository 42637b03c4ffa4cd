"""What the chart says twice, or what the code says too, is the same."""

import importlib.util
import json
import re
from typing import Any

import pytest
import yaml

from tests.helm.manifests import (
    CHART,
    EXAMPLES,
    ROOT,
    changed,
    env,
    example,
    of_kind,
    only,
    pods,
    ray_specs,
    render,
    render_text,
)

helm = pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
EKS, LAPTOP, GKE = example("eks-spot-64gpu"), example("laptop-kind"), example("gke-h100")
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def test_readme_is_what_the_chart_says() -> None:
    path = ROOT / "helm" / "readme.py"
    spec = importlib.util.spec_from_file_location("readme", path)
    assert spec
    assert spec.loader
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    assert (CHART / "README.md").read_text() == readme.text(), "run: python helm/readme.py"


def test_ray_is_the_version_of_the_constraints_everywhere() -> None:
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert VALUES["ray"]["version"] == pinned
    for name in EXAMPLES:
        for where, spec in ray_specs(render(example(name))):
            assert spec["rayVersion"] == pinned, (name, where)


def test_chart_is_the_version_of_the_project() -> None:
    project = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert project
    assert chart["appVersion"] == project[1]


def test_ports_are_those_of_the_local_cluster() -> None:
    from cluster.local import Ports

    manifests = render(EKS)
    (_, spec), *_ = ray_specs(manifests)
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    ports = {each["name"]: each["containerPort"] for each in head}
    assert (ports["gcs-server"], ports["dashboard"]) == (Ports().ray, Ports().dashboard)
    assert only(manifests, "Service", "-mlflow")["spec"]["ports"][0]["port"] == Ports().mlflow


def test_metrics_port_is_one_number_from_ray_to_prometheus() -> None:
    manifests = render(EKS, all_apis=True)
    service = only(manifests, "Service", "-ray-metrics")["spec"]
    assert service["ports"][0]["port"] == 8080
    for _, spec in ray_specs(manifests):
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            assert group["rayStartParams"]["metrics-export-port"] == "8080"
            offered = group["template"]["spec"]["containers"][0]["ports"]
            assert {"name": "metrics", "containerPort": 8080, "protocol": "TCP"} in offered
    (monitor,) = of_kind(manifests, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= only(manifests, "Service", "-ray-metrics")["metadata"]["labels"].items()


def test_every_pod_of_ours_runs_the_one_image() -> None:
    for name in EXAMPLES:
        images = {
            pod["spec"]["containers"][0]["image"]
            for where, pod in pods(render(example(name)))
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] not in ("postgresql", "s3")
        }
        assert len(images) == 1


def test_site_of_ray_pods_is_whole_and_resolves() -> None:
    from orchestrator.site import Site

    for name in EXAMPLES:
        values = example(name)
        for where, pod in pods(render(values)):
            given = {k: v for k, v in env(pod).items() if isinstance(v, str)}
            if "SHARDS_ROOT" not in given:
                continue
            site = Site.from_environment(given)
            assert site.shards_root == values["storage"]["shardsRoot"], where
            assert site.runs_root == values["storage"]["runsRoot"]
            assert site.mlflow_uri == given["MLFLOW_TRACKING_URI"]
            assert site.shards_cache == "/cache"


def test_variables_of_the_site_are_those_of_the_readme() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    given = {name for _, pod in pods(render(changed(LAPTOP))) for name in env(pod)}
    set_by_ray_or_user = {"RAY_ADDRESS", "SKIP_THOUGHTS"}
    assert set(listed) - given - set_by_ray_or_user == set()


def test_variables_that_the_chart_sets_cannot_be_set_beside_it() -> None:
    """Two of a name are refused by the server."""
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["env"]
    secret, own = schema["propertyNames"]["not"]["anyOf"]
    given = {
        name
        for each in EXAMPLES
        for where, pod in pods(render(changed(example(each), env={})))
        if where.startswith("RayCluster")
        for name in env(pod)
    }
    assert {name for name in given if not re.search(secret["pattern"], name)} == set(own["enum"])


def test_head_trains_nothing_and_workers_offer_what_the_values_say() -> None:
    spec = only(render(EKS), "RayCluster")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group, told in zip(spec["workerGroupSpecs"], EKS["workers"], strict=True):
        container = group["template"]["spec"]["containers"][0]
        assert group["groupName"] == told["name"]
        assert group["rayStartParams"]["num-cpus"] == str(told["cpu"])
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"]["cpu"] == str(told["cpu"])
        gpus = container["resources"]["limits"].get("nvidia.com/gpu", "0")
        assert gpus == group["rayStartParams"]["num-gpus"] == str(told["gpus"])
        market = group["labels"]["ray.io/market-type"]
        assert market == ("spot" if told.get("spot") else "on-demand")


def test_shared_memory_is_enough_for_the_doctor() -> None:
    from orchestrator.nodes import LEAST_SHM

    for name in EXAMPLES:
        for where, pod in pods(render(example(name))):
            for volume in pod["spec"]["volumes"]:
                if volume["name"] == "shared-memory":
                    size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30
                    assert size >= LEAST_SHM, where


def test_names_stay_within_what_kuberay_takes() -> None:
    job = {"name": 16 * "j", "command": "run", "experiment": "vgan_golf"}
    manifests = render(changed(LAPTOP, jobs=[job]), release=53 * "r")
    assert len(only(manifests, "RayJob")["metadata"]["name"]) <= 47
    assert len(only(manifests, "RayCluster")["metadata"]["name"]) <= 50


def test_notes_name_the_services_and_the_secret_that_there_are() -> None:
    notes = render_text(EKS)["NOTES.txt"]
    assert "service/demo-orchestrator-head-svc 8265" in notes
    assert "get secret demo-orchestrator " in notes
    assert "service/demo-orchestrator-mlflow 5000" in notes
    assert "enforce=restricted" in notes
    assert "enforce=restricted" not in render_text(example("single-node-gpu"))["NOTES.txt"]
    assert "for trials" in render_text(LAPTOP)["NOTES.txt"]
    assert "head-svc" not in render_text(GKE)["NOTES.txt"]
