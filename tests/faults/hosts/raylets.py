"""A Ray cluster of which every node is a host of a `Network`."""

import json
import time
import urllib.request
from http.client import HTTPException

from tests.faults.cluster import RAY
from tests.faults.hosts.network import ADDRESSES

HEAD = ADDRESSES["head"]
DASHBOARD = f"http://{HEAD}:8265"
SUBMIT = [*RAY, "job", "submit", f"--address={DASHBOARD}"]
_LIGHT = ["--object-store-memory=78643200"]  # the least that Ray takes
# A host that is silent is lost after 3 questions of 5 s each; Ray's own 5 of 10 s take a minute.
_TUNED = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    # As KubeRay has it where there is Redis; Ray's own minute is short for a machine this busy.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}
# A head that ends, as one that is not up in Ray's 30 s, is started again, as a kubelet does it.
_UNTIL = ["sh", "-c", 'until "$@"; do sleep 1; done', "until"]


class Raylets:
    """Ray on a head that trains nothing, and on hosts that train with a CPU each.

    environment: what every node has, and hands to its jobs and workers. redis: of `head`.
    """

    def __init__(self, network, logs, environment):
        self._network, self._logs = network, logs
        self._environment = _TUNED | environment

    def head(self, **redis):
        """Starts the head on a new host and waits until it tells of itself."""
        password = redis.pop("password", None)
        options = ["--head", "--port=6379", f"--dashboard-host={HEAD}", "--num-cpus=0"]
        self._start(
            "head", *options, *([f"--redis-password={password}"] if password else []), **redis
        )
        self.wait_for("head")

    def nodes(self, *names, offers=("--num-cpus=1",), **disks):
        """Starts nodes on new hosts and waits until the head knows them."""
        for name in names:
            self._start(name, f"--address={HEAD}:6379", *offers, **disks)
        self.wait_for(*names)

    def _start(self, name, *arguments, disk_mib=4096, cache_mib=1024, **more):
        network = self._network
        if name not in network.hosts:
            network.add(name, disk_mib=disk_mib, cache_mib=cache_mib)
        host = network.hosts[name]
        command = [*RAY, "start", "--block", f"--node-ip-address={host.address}", *_LIGHT]
        log = self._logs / f"{name}.log"
        again = _UNTIL if name == "head" else []
        return host.start([*again, *command, *arguments], log, **self._environment, **more)

    def jobs(self):
        """The states of all jobs, as the head tells."""
        with urllib.request.urlopen(f"{DASHBOARD}/api/jobs/", timeout=5) as answer:
            return {job["status"] for job in json.load(answer)}

    def wait_for_jobs(self, timeout_s=120):
        """Waits until all jobs have succeeded."""
        self._wait(lambda: self.jobs() == {"SUCCEEDED"}, "all jobs succeeded", timeout_s)

    def alive(self):
        """{name: Ray's id} of the hosts that the head calls alive, as its State API tells."""
        names = {address: name for name, address in ADDRESSES.items()}
        url = f"{DASHBOARD}/api/v0/nodes?limit=100&detail=1"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                listed = json.load(answer)["data"]["result"]["result"]
        except (OSError, HTTPException, TypeError):  # it does not answer, or has no answer yet
            return {}
        return {names[n["node_ip"]]: n["node_id"] for n in listed if n["state"] == "ALIVE"}

    def wait_for(self, *names, timeout_s=240):
        """Waits until all of these are alive."""
        self._wait(lambda: self.alive().keys() >= set(names), f"{names} alive", timeout_s)

    def wait_without(self, name, timeout_s):
        """Waits until the head calls one dead; the seconds that it took."""
        started = time.monotonic()
        self._wait(lambda: (a := self.alive()) and name not in a, f"{name} dead", timeout_s)
        return time.monotonic() - started

    def _wait(self, good, what, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not good():
            told = "".join(log.read_text()[-1500:] for log in self._logs.glob("*.log"))
            assert time.monotonic() < deadline, f"not {what} in {timeout_s} s\n{told}"
            time.sleep(0.3)

    def close(self):
        """Takes the power from all of them."""
        for name in [name for name in self._network.hosts if name != "services"]:
            self._network.remove(name)
