"""The one place where the ingest meets Ray: the same tasks, on as many processes as there are.

Tasks write their own output and return only small records, so no pixel passes through the object
store. A task lost with its worker or node runs again elsewhere; tasks are written so that running
twice changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

# Read when ray is imported: no telemetry, no login, and workers run this very environment.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray

Job = TypeVar("Job")
Result = TypeVar("Result")

ATTEMPTS = 8
"""How often a task is started again when the process or node it ran on dies."""
AHEAD = 64
"""Tasks that wait for a CPU of a cluster that was joined: for them an autoscaler brings nodes."""


@contextmanager
def cluster(workers: int | None) -> Iterator[Callable[[], int]]:
    """Joins the cluster of RAY_ADDRESS, or starts one here; gives how many tasks to hand it now.

    workers: at most this many; None for one per CPU, and on a cluster that was joined, which may
    have none yet and grow, as many again or AHEAD of them. Leaves an already connected Ray as it
    is.
    """
    mine = not ray.is_initialized()
    joins = not mine or bool(os.environ.get("RAY_ADDRESS"))
    if mine:
        # Without an address Ray would join whatever head happens to run on this machine.
        local: dict[str, Any] = {} if joins else {"address": "local", "num_cpus": workers}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **local)

    def at_a_time() -> int:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        most = cpus + max(cpus, AHEAD) if joins else cpus
        return min(workers, most) if workers else most

    try:
        yield at_a_time
    finally:
        if mine:
            ray.shutdown()


def spread(
    task: Callable[[Job], Result], jobs: Sequence[Job], at_a_time: Callable[[], int]
) -> Iterator[tuple[Job, Result]]:
    """(job, its result), as they finish; `at_a_time` of them at most are handed to Ray. One CPU
    each.

    Raises what a task raised, and RuntimeError when its process died too often; the tasks still
    running are then cancelled.
    """
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS)(task)
    waiting = iter(jobs)
    running: dict[ray.ObjectRef[Result], Job] = {}
    try:
        while True:
            for job in islice(waiting, max(0, at_a_time() - len(running))):
                running[remote.remote(job)] = job
            if not running:
                return
            finished, _ = ray.wait(list(running))
            for reference in finished:
                job = running.pop(reference)
                try:
                    yield job, ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.as_instanceof_cause() from None
                except ray.exceptions.RayError as error:
                    raise RuntimeError(
                        f"{task.__name__} died with its process {ATTEMPTS + 1} times "
                        f"({type(error).__name__}): is there memory enough for each worker?"
                    ) from None
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
