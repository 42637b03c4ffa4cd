"""A stand-in for KubeRay's operator, which cannot be had here: what of it our commands rely on.

Read from KubeRay 1.7's controllers: the states of a RayJob and their order, its finalizer, retries
by `backoffLimit`, what it makes and who owns that, the rights that it binds to a head's account.
`Played` does not know Ray: a job ends as the test's `Play` says. Not played: suspension, Kueue,
deadlines, `ttlSecondsAfterFinished`, changes of a RayCluster, the cleaning up of Redis.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

from tests.kubernetes.api import Api, Object, RefusedError, move_each
from tests.kubernetes.node import SUBMITTED, Node, Play, now

FINALIZER = "ray.io/rayjob-finalizer"
# common/rbac.go
RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]},
    {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]},
]


class KubeRay(ABC):
    """The operator. `step` moves every RayJob and RayCluster by one state."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.complaints: set[str] = set()  # what the server refused that a template led to

    @abstractmethod
    def _submitter(self, job: Object) -> Object:
        """The template of the pod that submits a job; asked for once a try."""

    @abstractmethod
    def _status(self, job: Object) -> int:
        """Of a job whose submitter has ended: with what its command did."""

    def _first_groups(self, _cluster: Object) -> list[Object]:
        """Of which a pod is made at once, beside the head."""
        return []

    def _additions(self, _cluster: Object, _group: Object) -> Object:
        """What the pod of a group has that its template has not."""
        return {}

    def step(self) -> None:
        """Every object, once."""
        move_each(self._step_job, self._api.list("rayjobs"), self.complaints)
        move_each(self._step_cluster, self._api.list("rayclusters"), self.complaints)

    def _step_job(self, job: Object) -> None:
        meta, status = job["metadata"], job.get("status", {})
        if "deletionTimestamp" in meta:
            self._api.patch(
                "rayjobs", meta["namespace"], meta["name"], {"metadata": {"finalizers": []}}
            )
            return
        state = status.get("jobDeploymentStatus", "")
        if state == "":
            self._begin(job)
        elif state == "Initializing":
            self._initialize(job)
        elif state == "Running":
            self._watch(job)
        elif state == "Retrying":
            self._clear(job)

    def _begin(self, job: Object) -> None:
        meta = job["metadata"]
        finalizers = {"metadata": {"finalizers": [FINALIZER]}}
        self._api.patch("rayjobs", meta["namespace"], meta["name"], finalizers)
        name = f"{meta['name']}-{secrets.token_hex(3)[:5]}"
        self._tell(
            job,
            jobDeploymentStatus="Initializing",
            jobId=name,
            rayClusterName=name,
            startTime=now(),
        )

    def _initialize(self, job: Object) -> None:
        meta, name = job["metadata"], job["status"]["rayClusterName"]
        origin = {SUBMITTED: meta["name"], "ray.io/originated-from-crd": "RayJob"}
        cluster = self._api.get("rayclusters", meta["namespace"], name)
        if cluster is None:
            labels = meta.get("labels", {}) | origin
            body = {"apiVersion": "ray.io/v1", "kind": "RayCluster"}
            body["spec"] = job["spec"]["rayClusterSpec"]
            self._make("rayclusters", job, name, labels=labels, **body)
        elif cluster.get("status", {}).get("state") == "ready":
            template = self._submitter(job)
            template["metadata"]["labels"] |= origin
            limit = job["spec"]["submitterConfig"]["backoffLimit"]
            spec = {"backoffLimit": limit, "template": template}
            self._make("jobs", job, meta["name"], labels=origin, spec=spec)
            self._tell(job, jobDeploymentStatus="Running", jobStatus="PENDING")

    def _watch(self, job: Object) -> None:
        meta, status = job["metadata"], job["status"]
        submitter = self._api.get("jobs", meta["namespace"], meta["name"])
        if not (submitter and submitter["status"].get("succeeded")):
            if status["jobStatus"] != "RUNNING":
                self._tell(job, jobStatus="RUNNING")
            return
        code = self._status(job)
        if code == 0:
            done = status.get("succeeded", 0) + 1
            self._tell(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", succeeded=done)
            return
        failed = status.get("failed", 0) + 1
        again = failed < job["spec"].get("backoffLimit", 0) + 1
        self._tell(
            job,
            jobDeploymentStatus="Retrying" if again else "Failed",
            jobStatus="FAILED",
            failed=failed,
            reason="AppFailed",
            message=f"Job entrypoint command failed with exit code {code}, last available logs:\n",
        )

    def _clear(self, job: Object) -> None:
        """Before the next try: what the last one had is deleted, and gone."""
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        parts = [("rayclusters", job["status"]["rayClusterName"]), ("jobs", name)]
        there = [part for part in parts if self._api.get(part[0], namespace, part[1])]
        for resource, each in there:
            self._api.delete(resource, namespace, each, propagationPolicy="Background")
        if not there:
            empty = dict.fromkeys(("rayClusterName", "jobId", "message", "reason", "jobStatus"))
            self._tell(job, jobDeploymentStatus="", **empty)

    def _step_cluster(self, cluster: Object) -> None:
        meta = cluster["metadata"]
        if "deletionTimestamp" in meta or cluster.get("status", {}).get("state") == "ready":
            return
        namespace, name = meta["namespace"], meta["name"]
        mine = self._api.list("pods", namespace=namespace, labels=f"ray.io/cluster={name}")
        if not mine:
            self._make_parts(cluster)
        elif all(pod["status"].get("phase") == "Running" for pod in mine):
            status = {"status": {"state": "ready"}}
            self._api.patch("rayclusters", namespace, f"{name}/status", status)

    def _make_parts(self, cluster: Object) -> None:
        """What there is before the first worker is asked for."""
        name, spec = cluster["metadata"]["name"], cluster["spec"]
        head = spec["headGroupSpec"]
        account = head["template"]["spec"]["serviceAccountName"]
        if not spec["authOptions"].get("secretName"):
            token = {"auth_token": secrets.token_hex(16)}
            self._make("secrets", cluster, name, stringData=token)
        if spec["enableInTreeAutoscaling"]:
            self._make("roles", cluster, name, rules=RULES)
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
            subject = {"kind": "ServiceAccount", "name": account}
            subject["namespace"] = cluster["metadata"]["namespace"]
            self._make("rolebindings", cluster, name, roleRef=role, subjects=[subject])
        for group in [head, *self._first_groups(cluster)]:
            self._make_pod(cluster, group)

    def _make_pod(self, cluster: Object, group: Object) -> None:
        """One of a group; the head's is one without a `groupName`."""
        name, of = cluster["metadata"]["name"], group.get("groupName", "headgroup")
        labels = group["template"]["metadata"].get("labels", {}) | {
            "ray.io/is-ray-node": "yes",
            "ray.io/cluster": name,
            "ray.io/node-type": "worker" if "groupName" in group else "head",
            "ray.io/group": of,
        }
        spec = group["template"]["spec"] | self._additions(cluster, group)
        self._make(
            "pods", cluster, f"{name}-{of}-{secrets.token_hex(3)[:5]}", labels=labels, spec=spec
        )

    def _make(
        self,
        resource: str,
        owner: Object,
        name: str,
        *,
        labels: Object | None = None,
        **body: object,
    ) -> None:
        """Something that goes when its owner is deleted."""
        meta = owner["metadata"]
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        reference |= {"name": meta["name"], "uid": meta["uid"], "controller": True}
        metadata = {"name": name, "labels": labels or {}, "ownerReferences": [reference]}
        try:
            self._api.create(resource, meta["namespace"], {"metadata": metadata, **body})
        except RefusedError as error:
            if error.status != 409:  # there already, from a step that was cut short
                raise

    def _tell(self, job: Object, **status: object) -> None:
        meta = job["metadata"]
        change = {"status": status}
        self._api.patch("rayjobs", meta["namespace"], f"{meta['name']}/status", change)


class Played(KubeRay):
    """The operator of a node that is played."""

    def __init__(self, api: Api, node: Node) -> None:
        super().__init__(api)
        self._node = node
        self._plays: dict[str, list[Play]] = {}  # by a text of the job's command

    def play(self, text: str, *plays: Play) -> None:
        """The next jobs whose command has the text go so, one try after the other."""
        self._plays[text] = list(plays)

    def _submitter(self, job: Object) -> Object:
        line = job["spec"]["entrypoint"]
        left = (plays for text, plays in self._plays.items() if text in line and plays)
        plays = next(left, [Play.ending(0)])
        self._node.plays[job["metadata"]["uid"]] = plays.pop(0)
        template: Object = job["spec"]["submitterPodTemplate"]
        return template

    def _status(self, job: Object) -> int:
        return self._node.plays[job["metadata"]["uid"]].status

    def _first_groups(self, cluster: Object) -> list[Object]:
        """Of each group that may have any, so that the server judges all templates."""
        return [group for group in cluster["spec"]["workerGroupSpecs"] if group["maxReplicas"]]
