"""A Kubernetes control plane of this process: etcd, kube-apiserver and kube-controller-manager.

On loopback, at ports that are free, unless pods have to reach the API server. There is no scheduler
and no kubelet here: `node.py` plays what they would do, or `pods/machine.py` runs them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
from pathlib import Path

import requests
import yaml

from cluster.service import free_port
from tests.kubernetes.api import Api, until

BIN = Path(__file__).parents[2] / "var" / "kubernetes" / "bin"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
USERS = ("person", "controllers", "standin")  # all may do everything; told apart in the audit log
# The stand-in's node sends no heartbeats, and nodes have no routes here.
CONTROLLERS = "*,-nodelifecycle,-nodeipam,-cloud-node-lifecycle,-route,-service,-ttl"
LOOPBACK = "127.0.0.1"
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "verbs": ["create", "update", "patch", "delete"]}],
}
# Questions that are asked by a POST.
QUESTIONS = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "tokenreviews")


class ControlPlane:
    """One, in a folder of its own; a context manager starts and ends it.

    address: of the API server; another than loopback's is there for pods, which trust it too.
    """

    def __init__(self, folder: Path, *, address: str = LOOPBACK) -> None:
        self.folder = folder
        self.address = address
        self._has_pods = address != LOOPBACK
        self.port, self._etcd, self._peer = free_port(), free_port(), free_port()
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.port}"

    def api(self, user: str = "standin") -> Api:
        """A client, as a user."""
        return Api(self.url, token=self._tokens[user], authority=self.folder / "tls.crt")

    def kubeconfig(self, user: str, *, token: str = "") -> Path:
        """A file for KUBECONFIG. token: instead of the user's own."""
        path = self.folder / f"{user}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "tls.crt")}
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token or self._tokens[user]}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": user}}],
            "current-context": "here",
        }
        path.touch(mode=0o600)  # helm warns of others who may read it
        path.write_text(yaml.safe_dump(text))
        return path

    def writes(self, user: str = "person") -> list[str]:
        """What a user has had the API server change or try to, oldest first: `verb uri`."""
        log = self.folder / "audit.log"
        events = map(json.loads, log.read_text().splitlines()) if log.exists() else []
        return [
            f"{event['verb']} {event['requestURI']}"
            for event in events
            if event["user"]["username"] == user and event["objectRef"]["resource"] not in QUESTIONS
        ]

    def start(self) -> None:
        """Starts all three and waits until they do their work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_files()
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._run(
            "etcd",
            *(f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=error"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
        )
        self.start_api()
        self._run(
            "kube-controller-manager",
            *(f"--kubeconfig={self.kubeconfig('controllers')}", "--leader-elect=false"),
            *("--bind-address=127.0.0.1", "--port=0", f"--secure-port={free_port()}"),
            *(f"--controllers={CONTROLLERS}", f"--cert-dir={self.folder}/managers"),
            f"--service-account-private-key-file={self.folder}/tls.key",
            *([f"--root-ca-file={self.folder}/tls.crt"] if self._has_pods else []),
        )
        until(
            lambda: self.api().list("serviceaccounts", namespace="default"),
            "a controller that makes service accounts",
            seconds=60,
            otherwise=self._tail,
        )

    def start_api(self) -> None:
        """Starts the API server, and waits until it is ready."""
        tls = f"{self.folder}/tls"
        self._run(
            "kube-apiserver",
            *(f"--etcd-servers=http://127.0.0.1:{self._etcd}", f"--secure-port={self.port}"),
            *(f"--bind-address={self.address}", f"--advertise-address={self.address}"),
            f"--endpoint-reconciler-type={'lease' if self._has_pods else 'none'}",
            "--service-cluster-ip-range=10.98.0.0/16",
            *(f"--tls-cert-file={tls}.crt", f"--tls-private-key-file={tls}.key"),
            *(
                f"--service-account-key-file={tls}.key",
                f"--service-account-signing-key-file={tls}.key",
            ),
            "--service-account-issuer=https://kubernetes.default.svc",
            *(f"--token-auth-file={self.folder}/tokens.csv", "--authorization-mode=RBAC"),
            *(
                f"--audit-policy-file={self.folder}/audit.yaml",
                f"--audit-log-path={self.folder}/audit.log",
            ),
            # Volumes of `cache.kind=persistentVolumeClaim`; they are on from 1.21.
            "--feature-gates=GenericEphemeralVolume=true",
            "--kubelet-preferred-address-types=InternalIP",
        )
        until(self._is_ready, "the API server", seconds=60, otherwise=self._tail)

    def kill_api(self) -> None:
        """Ends the API server as a crash does."""
        self._end("kube-apiserver", signal.SIGKILL)

    def stop(self) -> None:
        """Ends all of them; nothing is kept."""
        for name in list(self._running):
            self._end(name, signal.SIGKILL)

    def __enter__(self) -> ControlPlane:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_files(self) -> None:
        rows = [f'{token},{user},{user},"system:masters"' for user, token in self._tokens.items()]
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT))
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        names = f"subjectAltName=IP:{self.address},IP:10.98.0.1,DNS:kubernetes.default"
        make += ["-subj", f"/CN={self.address}", "-addext", names]
        make += ["-keyout", f"{self.folder}/tls.key", "-out", f"{self.folder}/tls.crt"]
        subprocess.run(make, check=True, capture_output=True)

    def _run(self, program: str, *options: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self._running[program] = subprocess.Popen(
                # Also when this process is killed, which ends nothing by itself.
                ["setpriv", "--pdeathsig", "KILL", BIN / program, *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours to handle
            )

    def _end(self, program: str, how: signal.Signals) -> None:
        process = self._running.pop(program)
        process.send_signal(how)
        process.wait(30)

    def _is_ready(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return self.api().is_ready()
        return False

    def _tail(self) -> str:
        """Which of them ended, and what they said."""
        logs = [(self.folder / f"{name}.log").read_text()[-1500:] for name in self._running]
        ended = [name for name, process in self._running.items() if process.poll() is not None]
        return f"ended: {ended}\n" + "\n".join(logs)


def what_is_missing() -> str:
    """Why there can be none here; empty when there can."""
    missing = [name for name in PROGRAMS if not os.access(BIN / name, os.X_OK)]
    return f"no {', '.join(missing)} in var/kubernetes/bin: make test-kubernetes" if missing else ""
