"""A node that runs pods: containerd, kubelet, scheduler, kube-proxy and the cluster's DNS.

It is in namespaces of its own for network, processes and mounts. When their first process ends, the
kernel ends all others, pods too, and unmounts what they mounted; it ends with this process. On its
network are the control plane and whoever gives commands as well (`joined`).

Images and what containerd made of them stay in `var/kubernetes/images` from one run to the next.
The kernel is told to be one of `CPUS` cores, since a trial asks for more than a laptop may have; so
pods wait for each other where they would run side by side. What the cluster's DNS and its network
plugin would find out, `resolve` and `filter` are told.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import yaml

from tests.faults.hosts.network import on_network_of
from tests.helm.manifests import ROOT
from tests.kubernetes.api import Api, Object, until
from tests.kubernetes.pods.policies import CHAIN
from tests.kubernetes.server import BIN

CPUS = 8
IMAGES = ROOT / "var" / "kubernetes" / "images"
# Under which names the example `laptop-kind` asks for what is in an archive.
ARCHIVES = {
    "video-orchestrator": ("video-orchestrator:0.1.0-cpu",),
    "trial": ("postgres:17.2", "chrislusf/seaweedfs:4.48"),
    "pause": ("pause:1",),
}
ADDRESS, _PODS = "10.99.0.1", "10.97.0.0/16"
_PROGRAMS = ("containerd", "ctr", "runc", "dnsmasq", "conntrack", "iptables", "unshare", "nsenter")
_PLUGINS = "/usr/lib/cni"
_BUILT = ("kubelet", "kube-scheduler", "kube-proxy")
_UNSHARE = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--pid", "--fork"]
_SETUP = f"""
mount --make-rshared /
ip link set lo up
ip addr add {ADDRESS}/32 dev lo
mkdir -p /run/netns && mount -t tmpfs netns /run/netns
mount -t tmpfs cpus /sys/devices/system/node
for n in $(seq 0 {CPUS - 1}); do
    mkdir -p /sys/devices/system/node/node0/cpu$n/topology
    cd /sys/devices/system/node/node0/cpu$n
    echo 1 >online; echo $n >topology/core_id; echo 0 >topology/physical_package_id
done
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
iptables -w -N {CHAIN}
iptables -w -I FORWARD -j {CHAIN}
iptables -w -I INPUT -j {CHAIN}
echo ready
exec env --ignore-signal=CHLD sleep infinity
"""


def why_not() -> str:
    """Why there can be no such node here; empty when there can."""
    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    missing += [program for program in _BUILT if not os.access(BIN / program, os.X_OK)]
    missing += [name for name in ARCHIVES if not (IMAGES / f"{name}.id").exists()]
    missing += [] if Path(_PLUGINS, "bridge").exists() else ["containernetworking-plugins"]
    if os.geteuid() or missing:
        return f"pods need root and {', '.join(missing or _PROGRAMS)}: make test-pods"
    return ""


class Machine:
    """The node. folder: for its logs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._rules = ""

    def __enter__(self) -> Machine:
        # Sockets are in it, whose paths have to be short.
        self._state = Path(tempfile.mkdtemp(prefix="vo-pods-", dir="/run"))
        self._first = subprocess.Popen(
            [*_UNSHARE, "--kill-child", "--mount-proc", "sh", "-ec", _SETUP],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._first.stdout
        if (told := self._first.stdout.readline()) != "ready\n":
            self._first.kill()
            shutil.rmtree(self._state)
            raise RuntimeError(told + self._first.stdout.read())
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text()
        self._pid = int(children.split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it and its pods."""
        self._first.kill()
        self._first.wait()
        assert self._first.stdout
        self._first.stdout.close()
        pods = Path(f"/proc/{self._pid}")  # the first process; the kernel ends all others before it
        until(lambda: not pods.exists(), "the end of all pods", seconds=60)
        for each in Path("/sys/fs/cgroup").glob("*/kubepods"):
            for path, _, _ in os.walk(each, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
        shutil.rmtree(self._state, ignore_errors=True)

    def joined(self) -> AbstractContextManager[None]:
        """This thread, and what it starts, are on the node's network."""
        on: AbstractContextManager[None] = on_network_of(self._pid)
        return on

    def start(self, api: Api, kubeconfig: Path) -> None:
        """Starts all of it, and waits until the scheduler may place pods here."""
        self._write_files()
        unpacked, wanted = IMAGES / "containerd" / "unpacked", _ids()
        if not unpacked.exists() or unpacked.read_text() != wanted:
            shutil.rmtree(unpacked.parent, ignore_errors=True)
        self._run("containerd", "--config", f"{self.folder}/containerd.toml")
        socket = self._state / "containerd.sock"
        until(socket.exists, "containerd", seconds=60, otherwise=self.tail)
        if not unpacked.exists():
            self._import(["ctr", f"--address={socket}", "--namespace=k8s.io"])
            unpacked.write_text(wanted)
        (self.folder / "hosts").touch()
        self._run(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"),
            *("--no-hosts", f"--addn-hosts={self.folder}/hosts", "--local=/cluster.local/"),
            *(f"--listen-address={ADDRESS}", "--bind-interfaces", "--user=root", "--pid-file="),
        )
        self._run(
            str(BIN / "kube-scheduler"),
            *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--port=0"),
            *("--bind-address=127.0.0.1", f"--cert-dir={self.folder}/scheduler"),
        )
        self._run(
            str(BIN / "kube-proxy"),
            *(f"--kubeconfig={kubeconfig}", "--proxy-mode=iptables", f"--cluster-cidr={_PODS}"),
            *("--hostname-override=node", "--bind-address=127.0.0.1"),
            *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
            *("--conntrack-tcp-timeout-close-wait=0", "--healthz-bind-address=127.0.0.1:10256"),
        )
        self._run(
            str(BIN / "kubelet"),
            *(f"--config={self.folder}/kubelet.yaml", f"--kubeconfig={kubeconfig}"),
            *("--container-runtime=remote", "--hostname-override=node", f"--node-ip={ADDRESS}"),
            f"--container-runtime-endpoint=unix://{socket}",
            *(f"--root-dir={self._state}/kubelet", f"--cert-dir={self.folder}/kubelet"),
        )
        until(lambda: _is_ready(api), "the node", seconds=180, otherwise=self.tail)
        api.patch("nodes", "", "node", {"spec": {"taints": None}})  # of a controller that is off

    def disk(self, folder: Path, gib: int) -> None:
        """A disk of that size at a folder, which belongs to the pods' user."""
        folder.mkdir(parents=True)
        options = f"size={gib}g,uid=10001,gid=10001,mode=0700"
        self._enter("mount", "-t", "tmpfs", "-o", options, "disk", str(folder))

    def resolve(self, addresses: dict[str, str]) -> None:
        """From now on the cluster's DNS knows these names."""
        text = "".join(f"{address} {name}\n" for name, address in sorted(addresses.items()))
        if (self.folder / "hosts").read_text() != text:
            (self.folder / "hosts").write_text(text)
            self._enter("pkill", "-HUP", "dnsmasq")

    def filter(self, rules: str) -> None:
        """From now on packets pass by these rules of `policies.packet_filter`."""
        if self._rules != rules:
            self._enter("iptables-restore", "--wait", "--noflush", given=rules)
            self._rules = rules

    def tail(self) -> str:
        """What its programs said last."""
        return "\n".join(
            f"== {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.log"))
        )

    def _write_files(self) -> None:
        lines = [
            "version = 2",
            f'root = "{IMAGES}/containerd"',
            f'state = "{self._state}/containerd"',
            "[grpc]",
            f'  address = "{self._state}/containerd.sock"',
            '[plugins."io.containerd.grpc.v1.cri"]',
            '  sandbox_image = "docker.io/library/pause:1"',
            "  restrict_oom_score_adj = true",
            '[plugins."io.containerd.grpc.v1.cri".cni]',
            f'  bin_dir = "{_PLUGINS}"',
            f'  conf_dir = "{self.folder}/cni"',
        ]
        (self.folder / "containerd.toml").write_text("\n".join(lines) + "\n")
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": _PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{self._state}/addresses",
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipam": ipam}
        network = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "pods.conflist").write_text(json.dumps(network))
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,  # nobody can fetch them again
            # What a machine that is itself a container's guest may not change.
            "maxOpenFiles": 20000,
            "oomScoreAdj": 0,
            "protectKernelDefaults": False,
        }
        (self.folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet))

    def _import(self, ctr: list[str]) -> None:
        """Unpacks the images."""
        for archive, names in ARCHIVES.items():
            self._enter(*ctr, "images", "import", str(IMAGES / f"{archive}.tar"))
            for name in names:
                full = f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
                self._enter(*ctr, "images", "tag", f"localhost/{archive}:latest", full)

    def _run(self, *command: str) -> None:
        with (self.folder / f"{Path(command[0]).name}.log").open("ab") as log:
            subprocess.Popen([*self._inside, *command], stdout=log, stderr=log)

    def _enter(self, *command: str, given: str = "") -> str:
        done = subprocess.run(
            [*self._inside, *command], input=given, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.tail()}"
        return done.stdout

    @property
    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self._pid}", "--net", "--mount", "--pid"]


def _ids() -> str:
    return "".join((IMAGES / f"{name}.id").read_text() for name in ARCHIVES)


def _is_ready(api: Api) -> Object | None:
    node = api.get("nodes", "", "node")
    conditions = {
        each["type"]: each["status"]
        for each in (node or {}).get("status", {}).get("conditions", [])
    }
    return node if conditions.get("Ready") == "True" else None
