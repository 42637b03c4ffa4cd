"""Asks the nodes of the connected Ray cluster: an actor on every node but this one, in seconds."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import nodes as checks_of
from orchestrator.config import Experiment
from orchestrator.nodes import Node
from orchestrator.preflight import DEADLINE_S, Check, Finding
from orchestrator.provenance import code_digest


def cluster_checks(
    experiment: Experiment | None, *, timeout_s: float = 0.75 * DEADLINE_S
) -> dict[str, Check]:
    """The checks of the connected cluster. All but the first share one round of questions.

    timeout_s: for all nodes to answer; those that do not are found by `nodes`.
    """
    ask = _once(lambda: gather(timeout_s=timeout_s))

    def check(of: Callable[[list[Node]], Finding | None]) -> Check:
        return lambda: of(ask())

    checks = {
        "state API": state_api_answers,
        "nodes": check(checks_of.all_answer),
        "versions": check(checks_of.versions_equal),
        "clocks": check(checks_of.clocks_agree),
        "node disks": check(checks_of.disks_have_room),
        "shared memory": check(checks_of.shared_memory_fits),
    }
    if experiment is not None and experiment.resources.use_gpu:
        least = experiment.resources.num_workers.minimum
        checks["GPUs"] = check(lambda nodes: checks_of.gpus_visible(nodes, least=least))
    return checks


def _once(compute: Callable[[], list[Node]]) -> Callable[[], list[Node]]:
    lock, kept = threading.Lock(), list[list[Node]]()

    def get() -> list[Node]:
        with lock:
            if not kept:
                kept.append(compute())
            return kept[0]

    return get


def describe(name: str) -> Node:
    """This machine."""
    shm = Path("/dev/shm")
    disk = shutil.disk_usage(os.environ.get("RAY_TMPDIR") or "/tmp")
    return Node(
        name=name,
        versions={
            "python": platform.python_version(),
            "ray": importlib.metadata.version("ray"),
            # Without the build: a head without GPU may well run the CPU one.
            "torch": importlib.metadata.version("torch").partition("+")[0],
            "code": code_digest(),
        },
        disk_used=disk.used / disk.total,
        shm_bytes=shutil.disk_usage(shm).total if shm.is_dir() else 0,
        gpus=_gpus(),
    )


def _gpus() -> int:
    try:
        import pynvml

        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except Exception:  # no driver, no GPU: then there are none, which is what is asked
        return 0


class _Probe:
    """Runs on the node that is asked."""

    def describe(self, name: str) -> Node:
        return describe(name)

    def clock(self) -> float:
        return time.time()

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def all_reduce(self, address: str, rank: int, size: int, mib: int, rounds: int) -> float:
        """Seconds of one sum of `mib` MiB over all probes by gloo, the median of some."""
        import statistics
        from datetime import timedelta

        import torch
        import torch.distributed as dist

        dist.init_process_group(
            "gloo",
            init_method=f"tcp://{address}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=30),
        )
        try:
            tensor = torch.ones(mib << 18)
            times = []
            for _ in range(1 + rounds):  # the first one connects
                started = time.perf_counter()
                dist.all_reduce(tensor)
                times.append(time.perf_counter() - started)
            return statistics.median(times[1:])
        finally:
            dist.destroy_process_group()


@contextlib.contextmanager
def _probes(nodes: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """A probe on each of Ray's nodes; they take no CPU, so a full cluster can be asked."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0)(_Probe)
    actors = [
        probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def gather(*, timeout_s: float) -> list[Node]:
    """The facts of every live node of the connected cluster, this one first and asked directly."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    alive = sorted(_alive(), key=lambda node: node["NodeID"] != here)
    others = [node for node in alive if node["NodeID"] != here]
    found = [describe(_name(alive[0]))] if alive and alive[0]["NodeID"] == here else []
    with _probes(others) as actors:
        pending = [a.describe.remote(_name(node)) for a, node in zip(actors, others, strict=True)]
        # One deadline for all; those that answer are done first.
        ray.wait(pending, num_returns=len(pending), timeout=timeout_s) if pending else None
        for node, actor, answer in zip(others, actors, pending, strict=True):
            try:
                found.append(_with_clock(ray.get(answer, timeout=0.1), actor))
            except (ray.exceptions.RayError, TimeoutError) as error:
                reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no answer"
                late = isinstance(error, TimeoutError)
                found.append(Node(name=_name(node), versions={}, error=reason[:300], late=late))
    gpus = {_name(node): int(node["Resources"].get("GPU", 0)) for node in alive}
    return [replace(node, advertised_gpus=gpus[node.name]) for node in found]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _with_clock(node: Node, actor: Any) -> Node:
    """Of five questions the quickest bounds the offset best: by half its round trip."""
    import ray

    best = (float("inf"), 0.0)
    for _ in range(5):
        before = time.time()
        there = ray.get(actor.clock.remote(), timeout=5)
        after = time.time()
        best = min(best, ((after - before) / 2, there - (before + after) / 2))
    return replace(node, clock_ahead_s=best[1], clock_within_s=best[0])


def all_reduce_gbit_s(*, mib: int = 16, rounds: int = 3, timeout_s: float = 60.0) -> float | None:
    """Gbit/s that each node sends while all sum `mib` MiB by gloo (bus bandwidth, as NCCL's tests
    count it: 2 (n - 1) / n of the bytes). None for a single node."""
    import ray

    alive = _alive()
    if len(alive) < 2:
        return None
    with _probes(alive) as actors:
        port = ray.get(actors[0].free_port.remote(), timeout=timeout_s)
        address = f"{alive[0]['NodeManagerAddress']}:{port}"
        size = len(actors)
        seconds = ray.get(
            [a.all_reduce.remote(address, r, size, mib, rounds) for r, a in enumerate(actors)],
            timeout=timeout_s,
        )
    return float(2 * (size - 1) / size * (mib << 23) / max(seconds) / 1e9)


def state_api_answers() -> Finding | None:
    """Whether the dashboard tells of this cluster: Ray Train asks it to clean up after the dead."""
    import ray
    from ray._private.utils import read_ray_address
    from ray.experimental.internal_kv import _internal_kv_get
    from ray.util.state import list_nodes

    remedy = (
        "Start the head with --include-dashboard=true and `ray[default]`; without the State API "
        "what a killed run held is never freed, and a sweep waits for it for ever"
    )
    ours = ray.get_runtime_context().gcs_address
    try:
        # Asked first because Ray's own question for a dashboard is repeated for most of a minute.
        if _internal_kv_get(b"dashboard", namespace=b"dashboard") is None:
            return _no_state_api("the head runs no dashboard", remedy)
        list_nodes(address=ours, limit=1, timeout=5, raise_on_missing_output=False)
    except Exception as error:  # it raises whatever its HTTP client raises
        return _no_state_api(f"{type(error).__name__}: {str(error)[:200]}", remedy)
    # Ray Train does not say which cluster it means; then this file does, of whoever wrote it last.
    other = None if "RAY_ADDRESS" in os.environ else read_ray_address()
    if other in (None, ours):
        return None
    return _no_state_api(
        f"Ray's ray_current_cluster names {other}, this cluster is {ours}",
        "Set RAY_ADDRESS to this cluster, or delete that file if nothing runs there any more",
    )


def _no_state_api(evidence: str, remedy: str) -> Finding:
    return Finding(
        problem="Ray's State API does not answer, or not for this cluster",
        evidence=evidence,
        remedy=remedy,
        fatal=False,
    )
