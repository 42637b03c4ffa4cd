"""A cluster of a head and two nodes, each a raylet of its own; a node is lost, or is taken away.

All of it, the driver too, lives in a network namespace that has nothing but its own loopback.

The run is elastic over 1..2 workers. The ledger is that of the uninterrupted run whatever the world
size; weights are not compared bit for bit, because batch statistics are of each worker's slice.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time

import psutil
import pytest

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
pytestmark = [pytest.mark.timeout(500), pytest.mark.parametrize("seed", SEEDS)]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


ADDRESS, DASHBOARD = "127.0.0.1:6379", "127.0.0.1:8265"


class Cluster:
    """`ray start --block` processes on loopback; a node has one CPU, the head none."""

    def __init__(self, folder):
        self.folder = folder
        self.name = f"faults-{os.getpid()}"
        self.inside = ["ip", "netns", "exec", self.name]
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

    def start(self, name, *arguments):
        command = [*self.inside, *RAY, "start", "--block", *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def head(self):
        self.start("head", "--head", "--num-cpus=0", "--dashboard-host=127.0.0.1")

    def node(self, name):
        self.start(name, f"--address={ADDRESS}", "--num-cpus=1")

    def nodes(self):
        """The nodes that are alive, as the State API tells."""
        url = f"http://{DASHBOARD}/api/v0/nodes?limit=10"
        ask = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"
        told = subprocess.run(
            [*self.inside, sys.executable, "-c", ask], capture_output=True, text=True
        )
        if told.returncode:
            return []
        listed = json.loads(told.stdout)["data"]["result"]["result"]
        return [node for node in listed if node["state"] == "ALIVE"]

    def wait_for(self, count, timeout_s=120):
        deadline = time.monotonic() + timeout_s
        while len(self.nodes()) < count:
            logs = "".join(log.read_text()[-1500:] for log in self.folder.glob("*.log"))
            assert time.monotonic() < deadline, f"fewer than {count} nodes\n{logs}"
            time.sleep(0.3)

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


@pytest.fixture
def cluster(tmp_path):
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    made = Cluster(tmp_path)
    try:
        made.head()
        made.wait_for(1)
        made.node("one")
        made.wait_for(2)  # two at once, on one address, would take each other's ports
        made.node("two")
        made.wait_for(3)
        yield made
    finally:
        made.close()


def _elastic(run, cluster, **options):
    environment = {**cluster.environment, "RAY_ADDRESS": ADDRESS}
    return run(workers="1..2", environment=environment, inside=cluster.inside, **options).start()


def test_node_lost_goes_on_with_the_rest_and_consumes_the_same_keys(
    run, cluster, uninterrupted, seed
):
    broken = _elastic(run, cluster)
    broken.wait_for_a_random_checkpoint(seed)
    names = [n for n in ("one", "two") if broken.workers(cluster.processes[n].pid)]
    cluster.kill(random.Random(seed).choice(names))
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    assert outcome.attempts[1]["world_size"] == 1
    outcome.assert_same(uninterrupted, weights=False)


def test_node_taken_away_with_notice_loses_no_step(run, cluster, uninterrupted, seed):
    broken = _elastic(run, cluster, extra=["budget.checkpoint_every=64"])
    broken.wait_for("attempts/0001.json")
    ids = sorted(node["node_id"] for node in cluster.nodes() if not node["is_head_node"])
    notice = [*cluster.inside, *RAY, "drain-node", f"--address={ADDRESS}"]
    notice += [f"--node-id={random.Random(seed).choice(ids)}", "--reason-message=spot"]
    notice += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds=60"]
    subprocess.run(notice, check=True, timeout=60, env=cluster.environment)
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    assert outcome.attempts[1]["first_step"] > 0, "saved before it left"
    outcome.assert_same(uninterrupted, weights=False)
