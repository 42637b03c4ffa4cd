"""One run from its plan to its result: preflight, tracking, training, registration, last word.

The driver's part. To MLflow it speaks as the writer `driver`; rank 0 speaks for the workers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psutil

from orchestrator import preflight, probe, registry
from orchestrator.checkpoint import Checkpoints
from orchestrator.config import Experiment
from orchestrator.cost import step_cost
from orchestrator.description import describe, family
from orchestrator.history import STOP
from orchestrator.mlflow_runs import reap, status_of
from orchestrator.outbox import Outbox
from orchestrator.provenance import git_commit
from orchestrator.site import Site
from orchestrator.tracking import Tracker
from orchestrator.train import SupersededError, connect, train
from orchestrator.worker import DivergedError, Job
from shards.storage import Store, open_store

STOP_DEADLINE_S = 20
MODEL_TAG = "orchestrator.model"  # of a run whose model is registered: its name and version


class Stopped(BaseException):
    """The deadline of a SIGTERM is over, or a second one came."""


def launch(
    experiment: Experiment,
    site: Site,
    name: str,
    version: str,
    *,
    as_json: bool,
    tags: Mapping[str, Any] | None = None,
    registers: bool = True,
) -> int:
    """Runs to the end, resuming what is there; the exit status of the command.

    tags: more tags of the MLflow run. registers: the model, when the run is finished.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    store = open_store(site.run(name))
    finished = finished_result(store)
    if finished is not None:
        print(f"{name} is finished; --fresh starts another. Its results: {site.run(name)}")
        try:
            _deliver(experiment, site, name, store, registers=registers)
        except OSError as error:
            print(f"error: {error}; the same command tries again", file=sys.stderr)
            return 1
        _last_word(finished, name, site, site.mlflow_uri, as_json=as_json)
        return 0
    try:
        preflight.demand(preflight.site_checks(site, experiment))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    job = new_job(experiment, site, name, version)

    def prepare() -> None:
        connect(experiment)
        preflight.demand(probe.cluster_checks(experiment))
        _stop_on_sigterm(store)  # Ray has just put its own handler there

    outcome = drive(job, prepare=prepare, tags=tags, registers=registers)
    if outcome.result is None:
        print(f"{name} {outcome.why}", file=sys.stderr)
        return 1
    _last_word(outcome.result, name, site, outcome.page, as_json=as_json)
    return 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the driving of a run ended.

    status: as MLflow knows it; None where a later start of the run speaks of it. result: of a
    finished run. why: of any other, as in "failed: ...". page: where MLflow shows it.
    """

    status: str | None
    result: dict[str, Any] | None = None
    why: str = ""
    page: str


def new_job(
    experiment: Experiment, site: Site, name: str, version: str, *, report_every: int | None = None
) -> Job:
    """The job of a run that this process is about to drive."""
    return Job(
        name=name,
        experiment=experiment,
        site=site,
        dataset_version=version,
        git=git_commit(),
        command_at=psutil.Process().create_time(),
        flops_per_clip=step_cost(experiment.model.build, experiment.model.clip_shape).flops,
        report_every=report_every,
    )


def drive(
    job: Job,
    *,
    prepare: Callable[[], None] = lambda: None,
    tags: Mapping[str, Any] | None = None,
    registers: bool = True,
) -> Outcome:
    """Trains to the end and tells MLflow; what goes wrong is in the outcome.

    prepare: what is to do once MLflow knows of the run, such as joining a cluster. tags: more tags
    of the MLflow run. registers: the model, when the run is finished.
    """
    store = open_store(job.site.run(job.name))
    tracker = Tracker(
        uri=job.site.mlflow_uri,
        run=job.name,
        outbox=job.site.outbox(job.name),
        writer="driver",
        creates=family(job.experiment),
        store=store,
    )
    describe(tracker, job)
    tracker.tags(tags or {})
    store.delete(STOP)
    status: str | None = "FAILED"
    result, why = None, ""
    try:
        _reap(tracker)
        prepare()
        trained = train(job)
        if "interrupted" in trained:
            raise Stopped(f"saved at step {trained['step']}")
        if registers:
            register(tracker, job.experiment, store)
        status, result = "FINISHED", trained
    except (Stopped, KeyboardInterrupt) as stopped:
        status, why = "KILLED", f"stopped {stopped}; the same command resumes it"
    except SupersededError as error:
        status, why = None, f"is left: {error}"
    except (RuntimeError, ValueError, OSError, DivergedError) as error:
        why = f"failed: {error}"
    finally:
        if status is not None:
            tracker.status(status)
        tracker.close(timeout_s=30)
    return Outcome(status=status, result=result, why=why, page=tracker.page)


def _stop_on_sigterm(store: Store) -> None:
    """At the first SIGTERM the workers are asked to save and leave; the driver waits for them."""

    def now(_signal: int, _frame: FrameType | None) -> None:
        raise Stopped("without saving")

    def ask(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, now)
        signal.signal(signal.SIGALRM, now)
        signal.alarm(STOP_DEADLINE_S)
        store.write(STOP, b"")

    signal.signal(signal.SIGTERM, ask)


def finished_result(store: Store) -> dict[str, Any] | None:
    """What a finished run ended with; None while it is not finished."""
    try:
        return dict(json.loads(store.read("result.json")))
    except FileNotFoundError:
        return None


def _reap(tracker: Tracker) -> None:
    def act(mlflow: Any, _: str) -> None:
        names = reap(mlflow)
        if names:
            print(f"MLflow called these running, nobody drove them; now KILLED: {', '.join(names)}")

    with contextlib.suppress(OSError):  # no reason for this run not to begin
        tracker.do(act, timeout_s=5)


def _deliver(
    experiment: Experiment, site: Site, name: str, store: Store, *, registers: bool
) -> None:
    """Tells MLflow what it has not heard of a finished run: it was away, or the driver killed.

    Raises OSError where MLflow does not take the model.
    """
    outboxes = [Outbox(site.outbox(name), writer, store) for writer in ("driver", "rank0")]
    status = (outboxes[0].last("status") or {}).get("status") or status_of(site.mlflow_uri, name)
    killed = status not in (None, "FINISHED")
    if not killed and all(outbox.is_empty for outbox in outboxes):
        return
    driver, rank0 = (
        Tracker(
            uri=site.mlflow_uri,
            run=name,
            outbox=outbox.folder,
            writer=outbox.writer,
            creates=family(experiment) if outbox.writer == "driver" else None,
            store=store,
            delivers=True,
        )
        for outbox in outboxes
    )
    try:
        if registers:
            register(driver, experiment, store)
    except OSError:
        driver.status("FAILED")  # which the next start of the run will see, and try again
        raise
    else:
        if killed:
            driver.status("FINISHED")
    finally:
        is_told = driver.close(timeout_s=60), rank0.close(timeout_s=60)
    if all(is_told):
        print("MLflow now has all that waited for it")


def register(tracker: Tracker, experiment: Experiment, store: Store) -> None:
    """Puts a finished run's model into MLflow's registry, once.

    Raises OSError where MLflow refuses, or ceases to answer.
    """
    newest = Checkpoints(store, keep=2).newest()
    assert newest is not None, "a finished run has a checkpoint"

    def act(mlflow: Any, run_id: str) -> None:
        if MODEL_TAG not in mlflow.get_run(run_id).data.tags:
            names = {name: newest.facts.get(name, ()) for name in registry.NAMES}
            weights = newest.state["learner"]
            model = registry.register(mlflow, run_id, experiment, weights, names)
            mlflow.set_tag(run_id, MODEL_TAG, model)

    if not tracker.do(act, timeout_s=20):
        print("the model is not registered: MLflow does not answer; the checkpoint is kept")


def _last_word(result: dict[str, Any], name: str, site: Site, page: str, *, as_json: bool) -> None:
    print(f"{name}: {result['steps']} steps done")
    print(f"  MLflow:       {page}")
    print(f"  samples:      {site.run(name)}/samples.gif")
    print(f"  checkpoints:  {site.run(name)}/checkpoints")
    if as_json:
        print(json.dumps({"run": name, "mlflow": page, **result}))
