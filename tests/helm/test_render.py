"""What the chart renders is what Kubernetes and KubeRay accept, for every example and branch."""

import functools
from typing import Any

import pytest
import yaml
from packaging.version import Version

from tests.helm.manifests import (
    CHART,
    CRDS,
    EXAMPLES,
    changed,
    crd_checks,
    env,
    example,
    of_kind,
    only,
    pods,
    ray_specs,
    render,
)

pytest.importorskip("helm_python", reason="no wheel for this machine: rendering needs Linux x86_64")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="run make setup")
# It reads its schemas, 10 MB a version, anew for every manifest.
kubernetes_validate.utils.schema_contents = functools.cache(
    kubernetes_validate.utils.schema_contents
)
LAPTOP, EKS, GKE = example("laptop-kind"), example("eks-spot-64gpu"), example("gke-h100")
AIRGAPPED, SINGLE = example("airgapped"), example("single-node-gpu")
JOB = {"name": "one", "command": "run", "experiment": "vgan_unfiltered"}

# Branches that no example takes.
BRANCHES: dict[str, dict[str, Any]] = {
    "no-network-policies": changed(LAPTOP, network__enabled=False),
    "mlflow-for-others": changed(EKS, network__mlflowClients=["people", "reports"]),
    "class-of-the-cluster": changed(EKS, mlflow__ingress__className=""),
    "own-priority-class": changed(LAPTOP, priorityClass={"name": "there-already"}),
    "deadline": changed(LAPTOP, jobs=[{**JOB, "deadlineSeconds": 3600, "ttlSeconds": 0}]),
    "cache-of-the-default-class": changed(GKE, cache__storageClassName=""),
    "extra-variables": changed(LAPTOP, env={"SKIP_THOUGHTS": "/models/skip"}),
    "external-mlflow-and-cluster-off": changed(AIRGAPPED, ray__cluster=False, jobs=[JOB]),
    "cached-image-never": changed(SINGLE, image__pullPolicy="Never"),
}


def is_core(manifest: dict[str, Any]) -> bool:
    return not manifest["apiVersion"].startswith(("ray.io", "monitoring.coreos.com"))


EVERY = {**{name: example(name) for name in EXAMPLES}, **BRANCHES}


@pytest.mark.parametrize("values", EVERY.values(), ids=EVERY)
def test_core_manifests_of_every_values_file_pass_kubernetes_1_27_to_the_newest(
    values: dict[str, Any],
) -> None:
    newest = kubernetes_validate.utils.latest_version()
    for manifest in render(values, all_apis=True):
        if is_core(manifest):
            for version in ("1.27", newest):
                kubernetes_validate.validate(manifest, version, strict=True)


def test_every_kind_passes_every_version_between() -> None:
    by_kind = {m["kind"]: m for m in render(EKS, all_apis=True) + render(LAPTOP) if is_core(m)}
    for version in kubernetes_validate.utils.all_versions():
        if Version(version) >= Version("1.27"):
            for manifest in by_kind.values():
                kubernetes_validate.validate(manifest, version, strict=True)


def test_kubernetes_schemas_refuse_what_is_wrong() -> None:
    deployment = only(render(EKS), "Deployment")
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(deployment, "1.30", strict=True)


@pytest.mark.skipif(not CRDS.is_dir(), reason=f"{CRDS}: the CRDs of KubeRay are not here")
@pytest.mark.parametrize("values", EVERY.values(), ids=EVERY)
def test_ray_manifests_of_every_values_file_pass_kuberays_schemas(values: dict[str, Any]) -> None:
    manifests = [m for m in render(values) if m["apiVersion"].startswith("ray.io")]
    assert manifests or values["ray"].get("cluster") is False
    for manifest in manifests:
        crd_checks()[manifest["kind"]](manifest)


@pytest.mark.skipif(not CRDS.is_dir(), reason=f"{CRDS}: the CRDs of KubeRay are not here")
@pytest.mark.parametrize("wrong", [{"replicas": "two"}, {"maxReplica": 3}, {"minReplicas": None}])
def test_kuberays_schemas_refuse_what_is_wrong(wrong: dict[str, Any]) -> None:
    import jsonschema

    cluster = only(render(LAPTOP), "RayCluster")
    cluster["spec"]["workerGroupSpecs"][0].update(wrong)
    with pytest.raises(jsonschema.ValidationError):
        crd_checks()["RayCluster"](cluster)


def test_names_are_unique_and_references_lead_somewhere() -> None:
    manifests = render(EKS, all_apis=True)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(set(names)) == len(names)
    accounts = {m["metadata"]["name"] for m in of_kind(manifests, "ServiceAccount")}
    for where, pod in pods(manifests):
        assert pod["spec"].get("serviceAccountName") in accounts | {None}, where
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} <= volumes, where


def test_services_select_pods_that_have_the_port() -> None:
    for values in EVERY.values():
        manifests = render(values, all_apis=True)
        for service in of_kind(manifests, "Service"):
            wanted = dict(service["spec"]["selector"])
            wanted.pop("ray.io/is-ray-node", None)  # KubeRay's own label
            found = [
                pod
                for _, pod in pods(manifests)
                if wanted.items() <= pod["metadata"]["labels"].items()
            ]
            port = service["spec"]["ports"][0]["targetPort"]
            offered = {
                each["name"]
                for pod in found
                for container in pod["spec"]["containers"]
                for each in container.get("ports", [])
            }
            assert port in offered, service["metadata"]["name"]


def test_jobs_retry_the_same_command_on_a_cluster_of_their_own() -> None:
    job = only(render(EKS), "RayJob", "-vgan")["spec"]
    assert job["backoffLimit"] == 10
    assert "clusterSelector" not in job  # KubeRay refuses it beside backoffLimit
    assert job["shutdownAfterJobFinishes"] is True
    assert [g["groupName"] for g in job["rayClusterSpec"]["workerGroupSpecs"]] == [
        "spot",
        "on-demand",
    ]


def test_run_is_elastic_within_its_groups_and_the_fallback_does_not_count() -> None:
    assert only(render(EKS), "RayJob", "-vgan")["spec"]["entrypoint"] == (
        "python -m orchestrator.run vgan_unfiltered resources.num_workers=1..64 "
        "resources.use_gpu=true resources.cpus_per_worker=22 --scale cluster"
    )


def test_run_on_a_group_of_one_size_is_not_elastic() -> None:
    entrypoint = only(render(changed(LAPTOP, jobs=[JOB])), "RayJob")["spec"]["entrypoint"]
    assert "resources.num_workers=1 " in entrypoint
    assert entrypoint.endswith("resources.use_gpu=false resources.cpus_per_worker=1")


def test_sweep_and_ingest_get_their_arguments_alone() -> None:
    manifests = render(EKS)
    assert only(manifests, "RayJob", "-lambda")["spec"]["entrypoint"] == (
        "python -m orchestrator.sweep vgan_lambda"
    )
    assert only(manifests, "RayJob", "-ingest")["spec"]["entrypoint"] == (
        "python -m orchestrator.ingest s3://example-video-raw/yfcc "
        "s3://example-video-shards/unfiltered"
    )


def test_overrides_that_the_chart_adds_are_valid_for_the_command() -> None:
    from orchestrator.experiments import resolve

    entrypoint = only(render(EKS), "RayJob", "-vgan")["spec"]["entrypoint"]
    words = entrypoint.split()
    added = [word for word in words if word.startswith("resources.")]
    resources = resolve(words[3], None, added).resources
    assert (resources.num_workers.minimum, resources.num_workers.maximum) == (1, 64)
    assert (resources.use_gpu, resources.cpus_per_worker) == (True, 22)


def test_groups_have_the_bounds_of_the_values_with_and_without_autoscaler() -> None:
    for autoscaling, replicas in ((True, [0, 0, 0]), (False, [8, 0, 16])):
        values = changed(EKS, ray__autoscaling={"enabled": autoscaling})
        spec = only(render(values), "RayCluster")["spec"]
        assert spec["enableInTreeAutoscaling"] is autoscaling
        assert ("autoscalerOptions" in spec) is autoscaling
        groups = spec["workerGroupSpecs"]
        assert [g["replicas"] for g in groups] == replicas
        assert [(g["minReplicas"], g["maxReplicas"]) for g in groups] == [(0, 8), (0, 8), (0, 16)]
        # Without autoscaler KubeRay refuses a cluster whose groups have any.
        assert [g.get("priority") for g in groups] == [10 if autoscaling else None, None, None]


def test_kueue_label_is_on_every_ray_object_or_on_none() -> None:
    for values, queue in ((GKE, "training"), (EKS, None)):
        for manifest in render(values):
            if manifest["kind"].startswith("Ray"):
                assert manifest["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == queue


@pytest.mark.parametrize(
    ("values", "source"),
    [(LAPTOP, "emptyDir"), (SINGLE, "hostPath"), (GKE, "ephemeral")],
    ids=["emptyDir", "hostPath", "persistentVolumeClaim"],
)
def test_cache_is_the_chosen_volume_at_the_place_that_runs_are_told(
    values: dict[str, Any], source: str
) -> None:
    for where, pod in pods(render(values)):
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "ray-worker":
            continue
        (cache,) = [v for v in pod["spec"]["volumes"] if v["name"] == "cache"]
        assert set(cache) == {"name", source}, where
        mounts = {m["name"]: m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["cache"] == env(pod)["SHARDS_CACHE"]


def test_gcs_is_in_redis_only_where_an_address_is_given() -> None:
    for values, given in ((SINGLE, True), (EKS, False)):
        for _, spec in ray_specs(render(values)):
            assert ("gcsFaultToleranceOptions" in spec) is given


def test_mlflow_answers_to_every_name_of_its_service_with_and_without_port() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    deployment = only(render(EKS), "Deployment", "mlflow")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    (flag,) = [a for a in container["args"] if a.startswith("--allowed-hosts=")]
    allowed = flag.removeprefix("--allowed-hosts=").split(",")
    service = only(render(EKS), "Service", "mlflow")["metadata"]["name"]
    names = [service + end for end in ("", ".training", ".training.svc")]
    names += [f"{service}.training.svc.cluster.local", "localhost", "127.0.0.1"]
    for name in [*names, "mlflow.example.org"]:
        for port in ("", ":5000"):
            assert is_allowed_host_header(allowed, name + port), name + port
    assert not is_allowed_host_header(allowed, "elsewhere.example.org")
    for _, pod in pods(render(EKS)):
        uri = env(pod).get("MLFLOW_TRACKING_URI")
        assert uri in (None, f"http://{service}:5000")


def test_mlflow_lets_its_own_page_change_things_by_the_ingress_and_no_other() -> None:
    from mlflow.server.security_utils import should_block_cors_request

    values = changed(EKS, mlflow__allowedOrigins=["https://runs.example.org:8443"])
    arguments = only(render(values), "Deployment", "mlflow")["spec"]["template"]["spec"][
        "containers"
    ][0]["args"]
    (flag,) = [a for a in arguments if a.startswith("--cors-allowed-origins=")]
    allowed = flag.removeprefix("--cors-allowed-origins=").split(",")
    for origin in ("https://mlflow.example.org", "https://runs.example.org:8443"):
        assert not should_block_cors_request(origin, "POST", allowed)
    assert should_block_cors_request("https://evil.example.org", "POST", allowed)
    closed = only(render(LAPTOP), "Deployment", "mlflow")["spec"]["template"]["spec"]
    assert not [a for a in closed["containers"][0]["args"] if a.startswith("--cors")]


def test_pods_of_a_release_do_not_evict_one_another() -> None:
    for where, pod in pods(render(EKS)):
        is_hook = where.endswith("-migrate")  # made before the class is
        assert pod["spec"].get("priorityClassName") == (None if is_hook else "training"), where


def test_head_of_a_lost_node_is_replaced_before_kuberay_gives_its_job_up() -> None:
    for _, spec in ray_specs(render(changed(EKS, ray__head__tolerations=[{"key": "mine"}]))):
        head = spec["headGroupSpec"]["template"]["spec"]["tolerations"]
        lost = {each["key"]: each.get("tolerationSeconds") for each in head}
        assert lost == {
            "mine": None,
            "node.kubernetes.io/unreachable": 30,
            "node.kubernetes.io/not-ready": 30,
        }
        for group in spec["workerGroupSpecs"]:
            keys = {t["key"] for t in group["template"]["spec"].get("tolerations", [])}
            assert not keys & lost.keys() - {"mine"}


def test_endpoint_is_of_s3_alone() -> None:
    import botocore.session

    values = changed(EKS, storage__endpoint="https://s3.vpce.example.org")
    variables = {
        name: value
        for _, pod in pods(render(values))
        for name, value in env(pod).items()
        if name.startswith("AWS_ENDPOINT")
    }
    assert variables == {"AWS_ENDPOINT_URL_S3": "https://s3.vpce.example.org"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        session = botocore.session.get_session()
        ends = {
            service: session.create_client(service, region_name="us-east-1").meta.endpoint_url
            for service in ("s3", "sts")
        }
    assert ends["s3"] == "https://s3.vpce.example.org"
    assert "amazonaws.com" in ends["sts"]


def test_migration_trusts_what_the_server_trusts() -> None:
    for values in (EKS, changed(EKS, storage__caConfigMap="site-ca")):
        mounts = [
            [m["name"] for m in pod["spec"]["containers"][0]["volumeMounts"]]
            for _, pod in pods(render(values))
            if pod["metadata"]["labels"]["app.kubernetes.io/component"].startswith("mlflow")
        ]
        assert mounts[0] == mounts[1]


def test_migration_runs_before_the_server_is_new_and_after_a_trials_database() -> None:
    for values, hook in ((EKS, "pre-install,pre-upgrade"), (LAPTOP, "post-install,pre-upgrade")):
        job = only(render(values), "Job", "-migrate")
        assert job["metadata"]["annotations"]["helm.sh/hook"] == hook


def test_budgets_are_rendered_without_a_cluster_to_ask() -> None:
    assert of_kind(render(EKS), "PodDisruptionBudget")


def test_trial_services_are_off_unless_asked() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert not defaults["trial"]["postgresql"]["enabled"]
    assert not defaults["trial"]["s3"]["enabled"]
    assert not of_kind(render(EKS), "StatefulSet")
    assert len(of_kind(render(LAPTOP), "StatefulSet")) == 2


def test_monitoring_is_left_out_where_the_cluster_does_not_know_it() -> None:
    kinds = {m["kind"] for m in render(EKS)}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
    kinds = {m["kind"] for m in render(EKS, all_apis=True)}
    assert {"ServiceMonitor", "PrometheusRule"} <= kinds
    off = changed(EKS, monitoring={"serviceMonitor": False, "rules": False, "dashboard": False})
    assert not {m["kind"] for m in render(off, all_apis=True)} & {
        "ServiceMonitor",
        "PrometheusRule",
        "ConfigMap",
    }
