"""KubeRay's operator for pods that run: what it puts into the chart's templates.

Written after KubeRay 1.7's `common/pod.go`, `job.go` and `service.go`. Not played: Redis, TLS, the
end of a job's cluster.
"""

from __future__ import annotations

import base64
from typing import Any

import requests

from tests.kubernetes.api import Api, Object
from tests.kubernetes.kuberay import KubeRay
from tests.kubernetes.person import Person
from tests.kubernetes.pods.machine import Machine
from tests.kubernetes.pods.policies import packet_filter

_PORTS = {"client": 10001, "dashboard": 8265, "gcs-server": 6379, "metrics": 8080}
_LOGS = {"name": "ray-logs", "mountPath": "/tmp/ray"}  # what the autoscaler writes, the head shows
_WAIT = """
while ! ray health-check --address {address} >/dev/null 2>&1; do
    echo "$SECONDS seconds elapsed: Waiting for GCS to be ready."
    sleep 5
done
"""
_HEALTH = (
    'python -c "import urllib.request; '
    "r=urllib.request.urlopen('{url}/api/gcs_healthz', timeout=5); "
    "exit(0 if b'success' in r.read() else 1)\""
)
_SUBMIT = (
    "until {health} >/dev/null 2>&1 ; do echo Waiting for {url} ; sleep 2 ; done ; "
    "if ! ray job status --address {url} {job} >/dev/null 2>&1 ; "
    "then ray job submit --address {url} --no-wait --submission-id {job} -- {entrypoint} ; "
    "fi ; ray job logs --address {url} --follow {job}"
)


class Operator(KubeRay):
    """The operator, the cluster's DNS and its network plugin.

    machine: its node. person: gives commands.
    """

    def __init__(self, api: Api, machine: Machine, person: Person) -> None:
        super().__init__(api)
        self.machine = machine
        self.person = person

    def step(self) -> None:
        super().step()
        known = dict(map(self._address, self._api.list("services")))
        self.machine.resolve({name: address for name, address in known.items() if address})
        kinds = ("networkpolicies", "pods", "namespaces")
        self.machine.filter(packet_filter(*(self._api.list(kind) for kind in kinds)))

    def _address(self, service: Object) -> tuple[str, str]:
        meta, spec = service["metadata"], service["spec"]
        name = f"{meta['name']}.{meta['namespace']}.svc.cluster.local"
        if spec["clusterIP"] != "None":
            return name, spec["clusterIP"]
        found = self._api.get("endpoints", meta["namespace"], meta["name"]) or {}
        subsets = found.get("subsets", [])
        kinds = ("addresses", "notReadyAddresses")
        near = [each["ip"] for subset in subsets for kind in kinds for each in subset.get(kind, [])]
        return name, near[0] if near else ""

    def _make_parts(self, cluster: Object) -> None:
        name = cluster["metadata"]["name"]
        selector = {"ray.io/cluster": name, "ray.io/node-type": "head"}
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
        ports = [{"name": each, "port": port} for each, port in _PORTS.items()]
        self._make("services", cluster, f"{name}-head-svc", spec={**spec, "ports": ports})
        super()._make_parts(cluster)

    def _additions(self, cluster: Object, group: Object) -> Object:
        container = group["template"]["spec"]["containers"][0]
        is_head = "groupName" not in group
        start = _start(cluster, group)
        adds = [
            *_token(cluster),
            {"name": "RAY_ADDRESS", "value": "127.0.0.1:6379" if is_head else _gcs(cluster)},
            *_names(cluster),
            {"name": "RAY_NODE_TYPE_NAME", "value": group.get("groupName", "headgroup")},
            _field("RAY_CLOUD_INSTANCE_ID", "metadata.name"),
            {"name": "KUBERAY_GEN_RAY_START_CMD", "value": start},
            {"name": "RAY_USAGE_STATS_KUBERAY_IN_USE", "value": "1"},
        ]
        if is_head and cluster["spec"]["enableInTreeAutoscaling"]:
            adds.append({"name": "RAY_enable_autoscaler_v2", "value": "1"})
        ray = {**container, "env": container["env"] + adds}
        ray["command"] = ["/bin/bash", "-c", "--", f"ulimit -n 65536; {start}"]
        if is_head:
            if not cluster["spec"]["enableInTreeAutoscaling"]:
                return {"containers": [ray]}
            both = [ray, _autoscaler(cluster)]
            for each in both:
                each["volumeMounts"] = [*each["volumeMounts"], _LOGS]
            volumes = [
                *group["template"]["spec"]["volumes"],
                {"name": _LOGS["name"], "emptyDir": {}},
            ]
            return {"containers": both, "volumes": volumes, **_never_again(cluster)}
        keys = ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
        waiting = {key: ray[key] for key in keys} | {"name": "wait-gcs-ready"}
        waiting["command"] = ["/bin/bash", "-c", "--", _WAIT.format(address=_gcs(cluster))]
        small = {"cpu": "200m", "memory": "256Mi"}
        waiting["resources"] = {"limits": small, "requests": small}
        return {"containers": [ray], "initContainers": [waiting], **_never_again(cluster)}

    def _step_cluster(self, cluster: Object) -> None:
        """Makes it; then has the workers that the autoscaler wants, and not those it is rid of."""
        super()._step_cluster(cluster)
        meta = cluster["metadata"]
        if "deletionTimestamp" in meta:
            return
        for group in cluster["spec"]["workerGroupSpecs"]:
            labels = f"ray.io/cluster={meta['name']},ray.io/group={group['groupName']}"
            found = self._api.list("pods", namespace=meta["namespace"], labels=labels)
            there = {pod["metadata"]["name"]: pod for pod in found}
            for name in group.get("scaleStrategy", {}).get("workersToDelete", []):
                if name in there:
                    self._api.delete("pods", meta["namespace"], name)
            going = [pod for pod in found if "deletionTimestamp" in pod["metadata"]]
            bounds = group["minReplicas"], group["maxReplicas"]
            wanted = min(max(group["replicas"], bounds[0]), bounds[1])
            if len(found) - len(going) < wanted:
                self._make_pod(cluster, group)

    def _submitter(self, job: Object) -> Object:
        template: Object = job["spec"]["submitterPodTemplate"]
        namespace, name = job["metadata"]["namespace"], job["status"]["rayClusterName"]
        cluster: Any = self._api.get("rayclusters", namespace, name)
        url = f"http://{_head(cluster)}:8265"
        command = _SUBMIT.format(
            health=_HEALTH.format(url=url),
            url=url,
            job=job["status"]["jobId"],
            entrypoint=job["spec"]["entrypoint"],
        )
        container = template["spec"]["containers"][0]
        container["command"] = ["/bin/bash", "-ce", "--", command]
        container["env"] += [*_token(cluster), {"name": "PYTHONUNBUFFERED", "value": "1"}]
        return template

    def _status(self, job: Object) -> int:
        """As the head's dashboard tells it."""
        namespace, name = job["metadata"]["namespace"], job["status"]["rayClusterName"]
        found: Any = self._api.get("endpoints", namespace, f"{name}-head-svc")
        cluster: Any = self._api.get("rayclusters", namespace, name)
        secret: Any = self._api.get("secrets", namespace, _secret(cluster))
        token = base64.b64decode(secret["data"]["auth_token"]).decode()
        url = f"http://{found['subsets'][0]['addresses'][0]['ip']}:8265/api/jobs/{job['status']['jobId']}"
        told = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        told.raise_for_status()
        return 0 if told.json()["status"] == "SUCCEEDED" else 1


def _head(cluster: Object) -> str:
    meta = cluster["metadata"]
    return f"{meta['name']}-head-svc.{meta['namespace']}.svc.cluster.local"


def _gcs(cluster: Object) -> str:
    return f"{_head(cluster)}:6379"


def _start(cluster: Object, group: Object) -> str:
    """`ray start` with all options of a group."""
    (container,) = group["template"]["spec"]["containers"]
    gib = container["resources"]["limits"]["memory"].removesuffix("Gi")
    options = {"dashboard-agent-listen-port": "52365", "memory": str(int(gib) << 30)}
    if "groupName" in group:
        options["address"] = _gcs(cluster)
        options["labels"] = ",".join(f"{key}={value}" for key, value in group["labels"].items())
    words = [f"--{key}={value}" for key, value in (options | group["rayStartParams"]).items()]
    if "groupName" not in group:
        words.append("--head")
        if cluster["spec"]["enableInTreeAutoscaling"]:
            words.append("--no-monitor")
    return " ".join(["ray start --block", *words])


def _autoscaler(cluster: Object) -> Object:
    """The container beside the head's that asks the API server for pods."""
    given = cluster["spec"]["autoscalerOptions"]
    taken = ("image", "imagePullPolicy", "securityContext", "resources", "volumeMounts")
    env = [
        *_names(cluster),
        *_token(cluster),
        _field("RAY_HEAD_POD_NAME", "metadata.name"),
        {"name": "KUBERAY_CRD_VER", "value": "v1"},
    ]
    command = "ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME)"
    command += " --cluster-namespace $(RAY_CLUSTER_NAMESPACE)"
    run = {"name": "autoscaler", "env": env, "command": ["/bin/bash", "-c", "--", command]}
    return {key: given[key] for key in taken} | run


def _never_again(cluster: Object) -> Object:
    return {"restartPolicy": "Never"} if cluster["spec"]["enableInTreeAutoscaling"] else {}


def _names(cluster: Object) -> list[Object]:
    meta = cluster["metadata"]
    return [
        {"name": "RAY_CLUSTER_NAME", "value": meta["name"]},
        {"name": "RAY_CLUSTER_NAMESPACE", "value": meta["namespace"]},
    ]


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _secret(cluster: Object) -> str:
    name: str = cluster["spec"]["authOptions"].get("secretName") or cluster["metadata"]["name"]
    return name


def _token(cluster: Object) -> list[Object]:
    key = {"name": _secret(cluster), "key": "auth_token"}
    return [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": key}},
    ]
