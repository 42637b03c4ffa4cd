"""A sweep from its plan to its best trial: its cluster, its run in MLflow, its registered model."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator import preflight, probe, registry
from orchestrator.claims import Reaper
from orchestrator.config import identity
from orchestrator.description import family
from orchestrator.launch import register
from orchestrator.sweeping.conduct import Conduct
from orchestrator.sweeping.driver import Setting
from orchestrator.sweeping.journal import Journal, Trial
from orchestrator.sweeping.plan import Planned, facts
from orchestrator.sweeping.progress import Progress
from orchestrator.sweeping.report import SWEEP_TAG, Parent, Table, tags_of_trial
from orchestrator.sweeping.tuning import Limits, Order, run_trials, scheduler
from orchestrator.tracking import Tracker
from orchestrator.train import connect
from shards.storage import open_store


class Sweeping:
    """One start of a sweep. It is at once refused with ValueError where it cannot run."""

    def __init__(self, planned: Planned, *, as_json: bool) -> None:
        site, experiment = planned.site, planned.experiment
        self._planned = planned
        self._sweep = planned.sweep
        self._store = open_store(site.run(planned.name))
        self._journal = Journal(self._store, facts(planned))
        preflight.demand(preflight.site_checks(site, experiment))
        connect(experiment, log_to_driver=False)
        preflight.demand(probe.cluster_checks(experiment))
        self._slots = slots(planned)
        self._table = Table(planned.sweep, planned.space, experiment, planned.rung_steps)
        self._progress = Progress(self._table, self._journal, experiment, as_json=as_json)
        self._conduct = Conduct(planned, self._journal, self._progress.said)

    def run(self) -> int:
        """Runs what is left of the sweep; the exit status."""
        planned = self._planned
        tracker = Tracker(
            uri=planned.site.mlflow_uri,
            run=planned.name,
            outbox=planned.site.outbox(planned.name),
            writer="driver",
            creates=family(planned.experiment),
            store=self._store,
        )
        tracker.status("RUNNING")
        self._describe(tracker)
        parents: list[str] = []
        if not tracker.do(lambda _, run_id: parents.append(run_id), timeout_s=30):
            tracker.close(timeout_s=1)
            print(f"error: MLflow at {planned.site.mlflow_uri} does not answer")
            return 1
        parent = Parent(
            planned.name, self._table, self._journal, planned.site, tracker, self._conduct.cost
        )
        reaper = Reaper(self._over_runs, self._progress.note)
        status, is_crowned = "FAILED", True
        try:
            self._tune(parents[0])
            status = self._conduct.verdict()
        finally:
            reaper.close()
            parent.close()
            best = self._table.best(self._journal.trials)
            if status == "FINISHED" and best is not None:
                is_crowned = self._crown(best)
            tracker.status(status)
            tracker.close(timeout_s=30)
            cost = self._conduct.cost()
            self._progress.close(
                planned.name, status, best, self._conduct.fatal, tracker.page, cost
            )
        return 0 if status == "FINISHED" and is_crowned else 1

    def _tune(self, parent: str) -> None:
        planned, sweep, name = self._planned, self._sweep, self._planned.name
        random.seed(sweep.seed)
        setting = Setting(
            site=planned.site,
            report_every=planned.report_every,
            experiment=planned.trial,
            run=planned.run,
            tags=lambda number: tags_of_trial(name, parent, number),
        )
        order = Order(self._conduct, self._slots)
        judge = scheduler(
            sweep,
            steps=planned.experiment.budget.steps,
            report_every=planned.report_every,
            past=self._journal.trials,
            explore=self._conduct.explore,
        )
        run_trials(
            setting,
            order,
            judge,
            Limits(self._conduct.over),
            storage=Path(planned.site.outbox(name)).parent / "ray" / str(int(time.time())),
            on_driver_node=sweep.scheduler == "pbt",
        )

    def stop(self) -> None:
        """Has every running trial save; the sweep ends when they have, or a while later."""
        self._conduct.stop()

    def _over_runs(self) -> set[str]:
        trials = dict(self._journal.trials)  # the reaper's thread asks
        return {trial.run for n, trial in trials.items() if n not in self._conduct.live}

    def _crown(self, best: Trial) -> bool:
        """Registers the best trial's model, under the alias `best`; whether MLflow took it."""
        site, experiment = self._planned.site, self._planned.trial(best.values)
        store = open_store(site.run(best.run))
        tracker = Tracker(
            uri=site.mlflow_uri,
            run=best.run,
            outbox=site.outbox(best.run),
            writer="driver",
            creates=family(experiment),
            store=store,
            delivers=True,
        )
        try:
            register(tracker, experiment, store)
            if tracker.run_id is not None:
                registry.mark_best(site.mlflow_uri, tracker.run_id)
        except (OSError, ValueError) as error:
            print(f"error: {error}; the same command tries again", file=sys.stderr)
            return False
        finally:
            tracker.close(timeout_s=20)
        return True

    def _describe(self, tracker: Tracker) -> None:
        """What defines the sweep as params; what may change from start to start as tags."""
        sweep = self._sweep
        (metric, mode), *_ = sweep.goals
        fixed = {k: v for k, v in identity(sweep).items() if isinstance(v, str | int | float)}
        params = {f"sweep.{name}": value for name, value in fixed.items() if name != "about"}
        space = {f"space.{path}": text for path, text in sweep.space.items()}
        tracker.params({"metric": f"train/{metric}", "mode": mode, **params, **space})
        limits = ("trials", "concurrent", "hours", "gpu_hours", "usd", "machine")
        given = {f"sweep.{name}": getattr(sweep, name) for name in limits}
        tracker.tags({name: value for name, value in given.items() if value is not None})
        tracker.tags({SWEEP_TAG: self._planned.name, "orchestrator.kind": "sweep"})


def slots(planned: Planned) -> Callable[[], int]:
    """How many trials fit beside one another, as a function of now.

    Where the cluster has an autoscaler it is one more than fit, and for that one it brings a node.
    Raises ValueError with the numbers where not even one fits and the cluster does not grow.
    """
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    resources = planned.experiment.resources
    lowest = resources.num_workers.minimum
    need = {"CPU": lowest * resources.cpus_per_worker, "GPU": lowest * int(resources.use_gpu)}
    need = {kind: count for kind, count in need.items() if count}
    have, free = ray.cluster_resources(), ray.available_resources()
    fit = min(int(have.get(kind, 0) // count) for kind, count in need.items())
    grows = bool(is_autoscaler_v2())
    if not fit and not grows:
        numbers = ", ".join(f"{n} {kind} of {have.get(kind, 0):g}" for kind, n in need.items())
        raise ValueError(
            f"a trial needs {numbers} that the cluster has: lower resources.num_workers or "
            "resources.cpus_per_worker, or set resources.use_gpu=false"
        )
    used = {kind: have.get(kind, 0) - free.get(kind, 0) for kind in need}

    def now() -> int:
        here = ray.cluster_resources()
        rooms = [int((here.get(k, 0) - used[k]) // count) for k, count in need.items()]
        most = planned.sweep.concurrent
        room = max(1, min(rooms) + grows)
        return room if most is None else min(room, most)

    return now
