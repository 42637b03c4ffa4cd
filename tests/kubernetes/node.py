"""A node that is played: pods bound to it begin and end as a kubelet would tell, and run nothing.

It stands in for the scheduler, the kubelet and the images. What it keeps of a kubelet: a pod whose
Secrets or ConfigMaps are not there does not begin; a pod that is deleted goes; logs are read by the
API server from it, by the kubelet's own path, so that `kubectl logs` is the real thing.
"""

from __future__ import annotations

import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.kubernetes.api import Api, Object, move_each

NAME = "played"
SUBMITTED = "ray.io/originated-from-cr-name"  # a label of submitters, by KubeRay


def now() -> str:
    """As Kubernetes writes the time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Play:
    """What the command of a job does: it prints, waits until it may end, and ends.

    cut_after: lines after which the first connection that follows the log breaks.
    """

    lines: tuple[str, ...] = ("step 1", "step 2")
    status: int = 0
    cut_after: int | None = None
    may_end: threading.Event = field(default_factory=threading.Event)
    stamps: list[str] = field(default_factory=list)

    @classmethod
    def held(cls, *lines: str, cut_after: int | None = None) -> Play:
        """One that goes on until `may_end` is set."""
        return cls(lines=lines, cut_after=cut_after)

    @classmethod
    def ending(cls, status: int, *lines: str) -> Play:
        """One that ends at once."""
        play = cls(lines=lines, status=status)
        play.may_end.set()
        return play

    def begin(self) -> None:
        """Stamps the lines, of the very same second as a container's first lines are."""
        second = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self.stamps = [f"{second}.{n // 2:09d}Z" for n in range(len(self.lines))]


class Node:
    """The node. `step` moves every pod as far as it goes."""

    def __init__(self, api: Api, *, tls: Path) -> None:
        self._api = api
        self._tls = tls
        self.complaints: set[str] = set()  # what the server does not take from it
        self.failing: set[str] = set()  # parts of names of pods that end with an error
        self.plays: dict[str, Play] = {}  # by the uid of a submitter's RayJob
        self._of_pod: dict[tuple[str, str], Play] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Joins the cluster, and serves logs to the API server."""
        handler = type("Logs", (_Logs,), {"plays": self._of_pod})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{self._tls}.crt", f"{self._tls}.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            self._join(server.server_port)
            yield
        finally:
            for play in self._of_pod.values():
                play.may_end.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def _join(self, port: int) -> None:
        self._api.create("nodes", "", {"metadata": {"name": NAME}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Played"}],
        }
        self._api.patch("nodes", "", f"{NAME}/status", {"status": status})

    def step(self) -> None:
        """Every pod, once."""
        move_each(self._step, self._api.list("pods"), self.complaints)

    def _step(self, pod: Object) -> None:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        phase = pod["status"].get("phase", "Pending")
        if "deletionTimestamp" in pod["metadata"]:
            if play := self._of_pod.get((namespace, name)):
                play.may_end.set()
            self._api.delete("pods", namespace, name, gracePeriodSeconds=0)
        elif "nodeName" not in pod["spec"]:
            target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
            binding = {"metadata": {"name": name}, "target": target}
            self._api.create("pods", namespace, binding, of=f"{name}/binding")
        elif phase == "Pending" and self._has_references(pod):
            owner = pod["metadata"]["labels"].get(SUBMITTED, "")
            if owner:
                self._begin(pod, owner)
            self._tell(pod, "Running", {"running": {"startedAt": now()}})
        elif phase == "Running" and (code := self._exit_code(pod)) is not None:
            ended = {"exitCode": code, "startedAt": now(), "finishedAt": now()}
            self._tell(pod, "Failed" if code else "Succeeded", {"terminated": ended})

    def _has_references(self, pod: Object) -> bool:
        """Whether the Secrets and ConfigMaps are there that the pod cannot begin without."""
        namespace = pod["metadata"]["namespace"]
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                wanted = variable.get("valueFrom", {}).get("secretKeyRef")
                if wanted and not wanted.get("optional"):
                    secret = self._api.get("secrets", namespace, wanted["name"]) or {}
                    if wanted["key"] not in secret.get("data", {}):
                        return False
        maps = [volume.get("configMap") for volume in pod["spec"].get("volumes", [])]
        return all(self._api.get("configmaps", namespace, each["name"]) for each in maps if each)

    def _begin(self, pod: Object, owner: str) -> None:
        namespace = pod["metadata"]["namespace"]
        job = self._api.get("rayjobs", namespace, owner) or {"metadata": {"uid": ""}}
        play = self.plays.get(job["metadata"]["uid"]) or Play.ending(0)
        play.begin()
        self._of_pod[namespace, pod["metadata"]["name"]] = play

    def _exit_code(self, pod: Object) -> int | None:
        """Of a pod that has ended; None while it runs. KubeRay's submitters end with 0."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        if play := self._of_pod.get((namespace, name)):
            return 0 if play.may_end.is_set() else None
        if any(part in name for part in self.failing):
            return 1
        owners = pod["metadata"].get("ownerReferences", [])
        return 0 if any(owner["kind"] == "Job" for owner in owners) else None

    def _tell(self, pod: Object, phase: str, state: Object) -> None:
        runs = phase == "Running"
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": container["image"],
                "containerID": f"played://{pod['metadata']['uid']}",
                "ready": runs,
                "started": runs,
                "restartCount": 0,
                "state": state,
            }
            for container in pod["spec"]["containers"]
        ]
        conditions = [
            {"type": kind, "status": str(runs), "lastTransitionTime": now()}
            for kind in ("Ready", "ContainersReady")
        ]
        status = {"phase": phase, "conditions": conditions, "containerStatuses": containers}
        status |= {"podIP": "127.0.0.1", "startTime": now()}
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        self._api.patch("pods", namespace, f"{name}/status", {"status": status})


class _Logs(BaseHTTPRequestHandler):
    """The one page of a kubelet that `kubectl logs` leads to."""

    plays: dict[tuple[str, str], Play]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """/containerLogs/NAMESPACE/POD/CONTAINER?follow=&sinceTime=&timestamps="""
        url = urllib.parse.urlsplit(self.path)
        _, kind, namespace, pod, _ = url.path.split("/")
        play = self.plays.get((namespace, pod))
        if kind != "containerLogs" or play is None:
            self.send_error(404)
            return
        asked = dict(urllib.parse.parse_qsl(url.query))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        follows = asked.get("follow") == "true"
        cut = play.cut_after if follows else None
        for number, (stamp, line) in enumerate(zip(play.stamps, play.lines, strict=True)):
            if number == cut:
                play.cut_after = None
                self.close_connection = True
                return  # without the last chunk: the reader knows that there is more
            if stamp[:19] >= asked.get("sinceTime", "")[:19]:  # the API has it in whole seconds
                self._chunk(f"{stamp} {line}\n" if asked.get("timestamps") else f"{line}\n")
        if follows:
            play.may_end.wait()
        self._chunk("")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Says nothing."""
