"""The only room that knows Ray Train: it starts the workers and survives their failures.

Checkpoints are ours, not Ray's (see docs/adr): after any restart a worker asks the run's own store
for the newest checkpoint that verifies, so nothing is reported to the controller and no step waits
for its poll.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from typing import Any

from orchestrator import parallel
from orchestrator.claims import named
from orchestrator.config import Experiment
from orchestrator.elastic import fresh_view
from orchestrator.gauges import Gauges
from orchestrator.outbox import is_full
from orchestrator.start_limit import bounded
from orchestrator.worker import DivergedError, Job, work


class SupersededError(RuntimeError):
    """The same run was started once more while this start was training."""


class FullError(RuntimeError):
    """There is no room on a disk of a worker's host."""


# glibc gives large freed blocks back to the kernel, which then zeroes the pages of a step's tensors
# anew: 53,000 faults and 9 % of the CPU time of a laptop-scale step (bench/cpu_step.py). A worker
# needs at every step what it needed at the last, so it keeps them. Other C libraries pass this by.
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",  # all others are pieces of 64 MiB that are given back whatever is set
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


def connect(experiment: Experiment, *, log_to_driver: bool = True) -> None:
    """Joins the cluster of RAY_ADDRESS, or starts one in this process for this run.

    log_to_driver: whether what the workers print is printed here.
    Raises ValueError, with the numbers, when a cluster of our own cannot hold the run's workers.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # else every line comes twice
    import ray

    resources = experiment.resources
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=log_to_driver)
        return
    # Without authentication, because nothing listens beyond loopback; the second variable is what
    # keeps Ray's GCS from it.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # The dashboard is what tells Ray Train's cleaner that a driver died.
    ray.init(
        address="local",  # and not whichever cluster was last started on this machine
        include_dashboard=True,
        log_to_driver=log_to_driver,
        _node_ip_address="127.0.0.1",
        # Ray hands the interpreter's path to a shell as it is, spaces and all.
        runtime_env={"py_executable": shlex.quote(sys.executable)},
    )
    have = ray.cluster_resources()
    lowest = resources.num_workers.minimum
    needs = {"CPU": lowest * resources.cpus_per_worker, "GPU": lowest * resources.use_gpu}
    for kind, need in needs.items():
        if need > have.get(kind, 0):
            ray.shutdown()
            raise ValueError(
                f"{lowest} worker(s) need {need} {kind}, this machine has "
                f"{have.get(kind, 0):g}: lower resources.num_workers or "
                "resources.cpus_per_worker, set resources.use_gpu=false, or use --scale laptop"
            )


def train(job: Job, *, controllers_lost: int = 0) -> dict[str, Any]:
    """Runs the job on the connected cluster to its end; rank 0's result.

    A node that is taken away with notice costs nothing but the time to start again. Ray Train's
    controller, an actor that nobody watches over, is replaced like a worker.
    Raises DivergedError when the loss is not finite, SupersededError when the same run was started
    once more meanwhile, and RuntimeError when workers failed, or could not be started, more often
    than `resources.max_failures` allows.
    """
    from ray.exceptions import RayActorError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = job.experiment.resources
    workers = resources.num_workers
    elastic = workers.minimum < workers.maximum
    trainer = TorchTrainer(
        _in_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if resources.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(workers.minimum, workers.maximum) if elastic else workers.maximum,
            use_gpu=resources.use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker, "GPU": int(resources.use_gpu)},
        ),
        run_config=RunConfig(
            name=f"controller-{int(time.time())}",
            storage_path=str(job.site.outbox(job.name).parent / "ray"),
            failure_config=FailureConfig(max_failures=resources.max_failures),
            callbacks=[
                named(job.name),
                bounded(resources.max_failures),
                *([fresh_view()] if elastic else []),
            ],
            worker_runtime_env={"env_vars": {} if resources.use_gpu else KEEP_FREED_MEMORY},
        ),
    )
    try:
        result: dict[str, Any] = trainer.fit().return_value
    except TrainingFailedError as error:
        full = [
            e for e in getattr(error, "worker_failures", {}).values() if isinstance(e, FullError)
        ]
        raise RuntimeError(str(full[0] if full else error)) from None
    except RayActorError as error:
        if controllers_lost >= resources.max_failures:
            raise RuntimeError(f"Ray Train's controller died: {error}") from None
        print("Ray Train's controller died; starting again from the newest checkpoint", flush=True)
        return train(job, controllers_lost=controllers_lost + 1)
    if "diverged" in result:
        raise DivergedError(result["diverged"])
    if result.get("interrupted") == "superseded":
        raise SupersededError("it has been started again; that start goes on, this one ends")
    if result.get("interrupted") == "preempted":
        print(f"a node is being taken away: saved at step {result['step']}, starting again")
        return train(job, controllers_lost=controllers_lost)
    return result


def _in_worker(config: dict[str, Any]) -> dict[str, Any]:
    """The body of a Ray Train worker. A diverged run returns: Ray would only start it again."""
    from ray.train import get_preemption_info
    from ray.train.torch import get_device

    def preempted() -> bool:
        return get_preemption_info() is not None

    job, world = config["job"], parallel.world()
    gauges = Gauges(run=job.name, experiment=job.experiment.name, rank=world.rank)
    try:
        return work(job, world, get_device(), preempted=preempted, told=gauges.tell)
    except DivergedError as error:
        return {"diverged": str(error)}
    except OSError as error:
        if not is_full(error):
            raise
        raise FullError(
            f"a disk of {socket.gethostname()} is full: {error}; make room, then the same command "
            "resumes the run"
        ) from None
