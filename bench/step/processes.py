"""Where a run's CPU seconds go: the threads of a process and of all its descendants."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

# The first that a command line contains names the part of a run that the process is.
PARTS = {
    "worker": ("ray::RayTrainWorker",),
    "Ray: dashboard, its agent, logs": ("dashboard", "log_monitor", "DashboardAgent"),
    "Ray Train's actors": ("ray::",),
    "Ray: raylet and GCS": ("raylet", "gcs_server", "autoscaler", "runtime_env"),
    "driver": ("orchestrator.run",),
}


@dataclass(frozen=True, kw_only=True)
class Thread:
    """CPU seconds so far of one thread of a part."""

    part: str
    cpu_s: float


Threads = dict[tuple[int, int], Thread]


def threads_of(pid: int) -> Threads:
    """Every thread of `pid` and its descendants, by (process, thread)."""
    found: Threads = {}
    top = psutil.Process(pid)
    for process in [top, *top.children(recursive=True)]:
        try:
            line = " ".join(process.cmdline())
            fits = (part for part, words in PARTS.items() if any(word in line for word in words))
            part = next(fits, "other")
            for thread in process.threads():
                cpu_s = thread.user_time + thread.system_time
                found[process.pid, thread.id] = Thread(part=part, cpu_s=cpu_s)
        except psutil.NoSuchProcess:
            continue
    return found


def spent(before: Threads, after: Threads, steps: int) -> dict[str, float]:
    """CPU seconds a step by part; of each worker's threads, the busiest one trains."""
    parts: dict[str, float] = {}
    busiest: dict[int, float] = {}
    for (pid, tid), thread in after.items():
        earlier = before.get((pid, tid))
        used = (thread.cpu_s - (earlier.cpu_s if earlier else 0.0)) / steps
        parts[thread.part] = parts.get(thread.part, 0.0) + used
        if thread.part == "worker":
            busiest[pid] = max(busiest.get(pid, 0.0), used)
    training = sum(busiest.values())
    return {
        "training threads": training,
        "workers' other threads": parts.pop("worker", 0.0) - training,
        **dict(sorted(parts.items(), key=lambda item: -item[1])),
    }
