"""A Ray cluster of several raylets in a network namespace that has nothing but its own loopback."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import psutil

DASHBOARD = "http://127.0.0.1:8265"
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""
_DRAIN = """
import sys, time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION as spot
gcs = GcsClient(address=sys.argv[1])
print("ready", flush=True)
node = sys.stdin.readline().strip()
deadline_ms = int(1000 * (time.time() + float(sys.argv[2])))
print(gcs.drain_node(node, spot, "spot", deadline_ms), flush=True)
"""


def why_not():
    """Why there can be no such cluster here, or None."""
    if os.geteuid() or not shutil.which("ip"):
        return "network namespaces need root and iproute2"
    return None


class Cluster:
    """`ray start --block` processes, by the names they are started under."""

    def __init__(self, folder):
        self.folder = folder
        self.name = f"faults-{os.getpid()}"
        self.inside = ["ip", "netns", "exec", self.name]
        self.address = ""
        self._port = 20_000 + os.getpid() % 10_000
        self.processes = {}
        # Detection of a lost node: 5 s instead of Ray's half a minute.
        self.environment = os.environ | {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "4",
        }
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run([*self.inside, "ip", "link", "set", "lo", "up"], check=True)

    def start(self, name, *arguments, **environment):
        """`ray start` with these arguments; `environment` adds to what its jobs inherit."""
        command = [*self.inside, *RAY, "start", "--block", *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=self.environment | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def head(self, cpus=0, **environment):
        """A head, at an address of its own: Ray takes whatever process on the machine, in other
        namespaces too, names the same address for its cluster."""
        self.address = f"127.0.0.1:{self._port}"
        options = [f"--num-cpus={cpus}", f"--port={self._port}", "--dashboard-host=127.0.0.1"]
        self._port += 1
        self.start("head", "--head", *options, **environment)
        self.wait_for(1)

    def node(self, name, cpus=1):
        """A node; the next one may be started only when this one is there (`wait_for`)."""
        self.start(name, f"--address={self.address}", f"--num-cpus={cpus}")

    def fetch(self, path):
        """The dashboard's answer to a GET, or None."""
        command = [*self.inside, sys.executable, "-S", "-c", _FETCH, DASHBOARD + path]
        told = subprocess.run(command, capture_output=True, text=True)
        return None if told.returncode else json.loads(told.stdout)

    def nodes(self):
        """The nodes that are alive, as the State API tells."""
        answer = self.fetch("/api/v0/nodes?limit=20")
        listed = answer["data"]["result"]["result"] if answer else []
        return [node for node in listed if node["state"] == "ALIVE"]

    def wait_for(self, count, timeout_s=300):
        deadline = time.monotonic() + timeout_s
        while len(self.nodes()) < count:
            assert time.monotonic() < deadline, f"fewer than {count} nodes\n{self.logs()}"
            time.sleep(0.3)

    def logs(self):
        return "".join(log.read_text()[-1500:] for log in self.folder.glob("*.log"))

    def notice(self, deadline_s=60):
        """Makes ready to tell that a node will be taken; give the node's id to what is returned."""
        command = [*self.inside, sys.executable, "-c", _DRAIN, self.address, str(deadline_s)]
        waiting = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert waiting.stdout.readline() == "ready\n"

        def give(node_id):
            answer, _ = waiting.communicate(node_id + "\n", timeout=30)
            assert answer.startswith("(True"), answer

        return give

    def kill(self, name):
        """SIGKILL to everything of a node at once, as when its power goes."""
        started = self.processes.pop(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(started.pid)
            for each in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        started.wait()

    def close(self):
        for name in list(self.processes):
            self.kill(name)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)
