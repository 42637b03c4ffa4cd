"""Every pod is restricted, secrets come by reference, and only the flows of the table are open."""

from typing import Any

import pytest

from tests.helm.manifests import (
    EXAMPLES,
    changed,
    env,
    example,
    of_kind,
    only,
    pods,
    ray_specs,
    render,
)

pytest.importorskip("helm_python", reason="no wheel for this machine: rendering needs Linux x86_64")
EKS, LAPTOP, AIRGAPPED = example("eks-spot-64gpu"), example("laptop-kind"), example("airgapped")
EVERY = {name: example(name) for name in EXAMPLES}
ALLOWED_VOLUMES = {"configMap", "emptyDir", "ephemeral", "persistentVolumeClaim", "secret"}
SPOT_LABELS = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}


def violations(pod: dict[str, Any]) -> list[str]:
    """Of the restricted pod security standard, by its text of Kubernetes 1.33."""
    spec, out = pod["spec"], []
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        out.append("host namespaces")
    for volume in spec["volumes"]:
        if not set(volume) - {"name"} <= ALLOWED_VOLUMES:
            out.append(f"volume {volume}")
    of_pod = spec.get("securityContext", {})
    for container in spec["containers"] + spec.get("initContainers", []):
        own = container["securityContext"]
        both = {**of_pod, **own}
        wanted = {
            "not as root": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "no escalation": own.get("allowPrivilegeEscalation") is False,
            "no capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "seccomp": both.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "not privileged": not own.get("privileged"),
            "no host ports": not any(p.get("hostPort") for p in container.get("ports", [])),
        }
        out += [f"{container['name']}: {name}" for name, holds in wanted.items() if not holds]
    return out


@pytest.mark.parametrize("name", EXAMPLES)
def test_pods_meet_the_restricted_standard_but_for_a_hostpath_that_was_asked_for(name: str) -> None:
    for where, pod in pods(render(EVERY[name])):
        found = violations(pod)
        if name == "single-node-gpu" and where.endswith(" gpu"):
            assert found == [f"volume {pod['spec']['volumes'][-1]}"]
            assert "hostPath" in found[0]
        else:
            assert found == [], where


@pytest.mark.parametrize("name", EXAMPLES)
def test_root_is_read_only_and_what_is_written_is_a_volume(name: str) -> None:
    for where, pod in pods(render(EVERY[name])):
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, where


@pytest.mark.parametrize("name", EXAMPLES)
def test_autoscaler_beside_the_head_is_restricted_as_the_head_is(name: str) -> None:
    for _, spec in ray_specs(render(EVERY[name])):
        head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
        if spec["enableInTreeAutoscaling"]:
            assert spec["autoscalerOptions"]["securityContext"] == head["securityContext"]
            assert spec["autoscalerOptions"]["image"] == head["image"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_secrets_come_by_reference_and_none_is_made(name: str) -> None:
    manifests = render(EVERY[name])
    assert not of_kind(manifests, "Secret")
    references = 0
    for where, pod in pods(manifests):
        for variable, value in env(pod).items():
            if any(word in variable for word in ("PASSWORD", "SECRET", "ACCESS_KEY", "STORE_URI")):
                assert set(value) == {"secretKeyRef"}, (where, variable)
                references += 1
    assert references


@pytest.mark.parametrize("name", EXAMPLES)
def test_images_are_named_by_digest_but_on_a_laptop(name: str) -> None:
    for where, pod in pods(render(EVERY[name])):
        for container in pod["spec"]["containers"]:
            by_digest = "@sha256:" in container["image"]
            assert by_digest is (name != "laptop-kind"), where
            assert not container["image"].endswith(":latest")


@pytest.mark.parametrize("name", EXAMPLES)
def test_token_of_the_api_server_is_in_heads_with_an_autoscaler_alone(name: str) -> None:
    manifests = render(EVERY[name])
    autoscaled = EVERY[name]["ray"].get("autoscaling", {}).get("enabled", True)
    for where, pod in pods(manifests):
        mounts = pod["spec"]["automountServiceAccountToken"]
        assert mounts is (autoscaled and where.endswith(" head")), where
    for account in of_kind(manifests, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    rights = {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    assert not [m for m in manifests if m["kind"] in rights]


def test_service_accounts_carry_the_clouds_identity() -> None:
    for account in of_kind(render(EKS), "ServiceAccount"):
        assert account["metadata"]["annotations"] == EKS["serviceAccount"]["annotations"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_ray_asks_for_a_token_everywhere(name: str) -> None:
    for where, spec in ray_specs(render(EVERY[name])):
        assert spec["authOptions"]["mode"] == "token", where


def test_ray_takes_the_token_of_a_named_secret() -> None:
    (_, spec), *_ = ray_specs(render(AIRGAPPED))
    assert spec["authOptions"]["secretName"] == "ray-token"


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_reached_from_outside_but_mlflow_by_an_ingress_with_tls(name: str) -> None:
    manifests = render(EVERY[name])
    for service in of_kind(manifests, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    for _, spec in ray_specs(manifests):
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert not spec["headGroupSpec"].get("enableIngress")
    for ingress in of_kind(manifests, "Ingress"):
        assert ingress["spec"]["tls"] == [
            {"hosts": ["mlflow.example.org"], "secretName": "mlflow-tls"}
        ]
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend["name"].endswith("-mlflow")


def test_mlflow_runs_basic_auth_and_its_users_come_from_a_secret() -> None:
    container = only(render(EKS), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    script = container["command"][2]
    compile(script, "mlflow_server.py", "exec")
    assert '"--app-name", "basic-auth"' in script
    assert container["command"][3] == "serve"


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_must_not_vanish_is_kept_off_spot_nodes(name: str) -> None:
    groups = {group["name"]: group for group in EVERY[name]["workers"]}
    for where, pod in pods(render(EVERY[name])):
        is_trial = pod["metadata"]["labels"]["app.kubernetes.io/component"] in (
            "postgresql",
            "s3",
            "s3-buckets",
        )
        may = groups.get(where.rpartition(" ")[2], {}).get("spot", False) or is_trial
        affinity = pod["spec"].get("affinity")
        assert (affinity is None) is may, where
        if affinity:
            wanted = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (term,) = wanted["nodeSelectorTerms"]
            refused = {(e["key"], *e["values"]): e["operator"] for e in term["matchExpressions"]}
            assert refused == dict.fromkeys(SPOT_LABELS.items(), "NotIn")


def components(selector: dict[str, Any]) -> set[str]:
    return {value for each in selector.get("matchExpressions", []) for value in each["values"]}


def flows(manifests: list[dict[str, Any]], direction: str) -> set[tuple[str, str, int | None]]:
    """(from, to, port) of pods of the release to each other, as one side's policies say."""
    out = set()
    for policy in of_kind(manifests, "NetworkPolicy"):
        mine = components(policy["spec"]["podSelector"])
        for rule in policy["spec"].get(direction, []):
            ports = [each["port"] for each in rule.get("ports", [])] or [None]
            for peer in rule["from" if direction == "ingress" else "to"]:
                for other in components(peer.get("podSelector", {})):
                    for one in mine:
                        pair = (other, one) if direction == "ingress" else (one, other)
                        out |= {(*pair, port) for port in ports}
    return out


RAY_TO_RAY = {(a, b, None) for a in ("ray-head", "ray-worker") for b in ("ray-head", "ray-worker")}
RAY_TO_MLFLOW = {("ray-head", "mlflow", 5000), ("ray-worker", "mlflow", 5000)}
TRIAL = {("mlflow", "postgresql", 5432), ("mlflow-migrate", "postgresql", 5432)} | {
    (one, "s3", 8333) for one in ("ray-head", "ray-worker", "mlflow", "s3-buckets")
}


@pytest.mark.parametrize(
    ("values", "more"),
    [(EKS, RAY_TO_MLFLOW), (LAPTOP, RAY_TO_MLFLOW | TRIAL), (AIRGAPPED, set())],
    ids=["eks", "laptop", "airgapped"],
)
def test_pods_reach_each_other_by_exactly_these_flows_and_both_ends_agree(
    values: dict[str, Any], more: set[tuple[str, str, int | None]]
) -> None:
    manifests = render(values)
    expected = RAY_TO_RAY | {("submitter", "ray-head", 8265)} | more
    assert flows(manifests, "egress") == expected
    assert flows(manifests, "ingress") == expected


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_flows_by_default_but_dns(name: str) -> None:
    manifests = render(EVERY[name])
    default = only(manifests, "NetworkPolicy", "-default")["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in default
    assert {(p["protocol"], p["port"]) for p in default["egress"][0]["ports"]} == {
        ("UDP", 53),
        ("TCP", 53),
    }
    assert len(default["egress"]) == 1
    selector = default["podSelector"]["matchLabels"]
    for where, pod in pods(manifests):
        assert selector.items() <= pod["metadata"]["labels"].items(), where


def test_names_are_resolved_by_servers_that_are_no_pods_where_the_values_say_so() -> None:
    values = changed(EKS, network__dnsCidrs=["169.254.20.10/32"])
    default = only(render(values), "NetworkPolicy", "-default")["spec"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in default["egress"][0]["to"]


def test_flows_out_of_the_cluster_are_those_of_the_values() -> None:
    out = {}
    for policy in of_kind(render(AIRGAPPED), "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            for peer in rule["to"]:
                if "ipBlock" in peer:
                    out[peer["ipBlock"]["cidr"]] = [each["port"] for each in rule["ports"]]
    assert out == {"10.20.0.10/32": [443], "10.20.0.11/32": [443], "10.20.0.2/32": [6443]}


def test_identity_is_fetched_only_where_no_keys_are_given() -> None:
    for values, opened in ((EKS, True), (LAPTOP, False)):
        names = {m["metadata"]["name"] for m in of_kind(render(values), "NetworkPolicy")}
        assert any(name.endswith("identity-out") for name in names) is opened


def test_sites_own_authority_reaches_every_client_that_needs_it() -> None:
    for where, pod in pods(render(AIRGAPPED)):
        if where.endswith("submitter"):
            continue
        for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            path = env(pod)[variable]
            mounts = {m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
            assert path.rpartition("/")[0] in mounts, where


def test_network_policies_can_be_left_to_the_site() -> None:
    assert not of_kind(render(changed(EKS, network={"enabled": False})), "NetworkPolicy")
