"""A sweep from its plan to its best trial: what is suggested, reported, stopped, shown and kept.

Every event of a trial goes to the journal first. A failing trial does not stop the others, but the
first few all failing, or a metric that is not among what trials report, ends the sweep: more trials
would only cost more.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from orchestrator import preflight, probe
from orchestrator.claims import release
from orchestrator.config import identity, suggest
from orchestrator.description import family
from orchestrator.history import STOP
from orchestrator.journal import Journal, Trial
from orchestrator.launch import MODEL_TAG, register
from orchestrator.search import Search
from orchestrator.sweep_plan import Planned, facts
from orchestrator.sweep_progress import Progress
from orchestrator.sweep_report import SWEEP_TAG, Parent, Table, tags_of_trial
from orchestrator.tracking import Tracker
from orchestrator.train import connect
from orchestrator.tuning import Limits, Order, Report, Setting, run_trials, scheduler
from shards.storage import open_store

BEST = "best"  # the alias of the best trial's model in the registry
FIRST_FAILURES = 3  # that end a sweep of which nothing finished
STOP_S = 25.0  # that running trials have to save when the sweep is told to stop


class Sweeping:
    """One start of a sweep. It is at once refused with ValueError where it cannot run."""

    def __init__(self, planned: Planned, *, as_json: bool) -> None:
        site, experiment = planned.site, planned.experiment
        self._planned = planned
        self._sweep = planned.sweep
        self._store = open_store(site.run(planned.name))
        self._journal = Journal(self._store, facts(planned))
        self._search = Search(planned.sweep, planned.space)
        preflight.demand(preflight.site_checks(site, experiment))
        connect(experiment, log_to_driver=False)
        preflight.demand(probe.cluster_checks(experiment))
        self._slots = slots(planned)
        self._table = Table(planned.sweep, planned.space, experiment, planned.rung_steps)
        self._progress = Progress(self._table, self._journal, experiment, as_json=as_json)
        self._began = time.monotonic()
        self._before = {n: trial.seconds for n, trial in self._journal.trials.items()}
        self._asked: float | None = None
        self._live: set[int] = set()
        self.fatal = ""

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
        parent = Parent(planned.name, self._table, self._journal, planned.site, tracker, self._cost)
        status = "FAILED"
        try:
            self._tune(parents[0])
            status = "KILLED" if self._asked is not None else self._verdict()
        finally:
            self._release()
            parent.close()
            best = self._table.best(self._journal.trials)
            if status == "FINISHED" and best is not None:
                self._crown(best)
            tracker.status(status)
            tracker.close(timeout_s=30)
            self._progress.close(planned.name, status, best, self.fatal, tracker.page, self._cost())
        return 0 if status == "FINISHED" else 1

    def stop(self) -> None:
        """Has every running trial save; the sweep ends when they have, or a while later."""
        if self._asked is not None:
            self._asked = -STOP_S  # twice: now
            return
        self._asked = time.monotonic()
        for number in self._live:
            open_store(self._planned.site.run(self._journal.trials[number].run)).write(STOP, b"")

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
        order = Order(
            self._journal,
            slots=self._slots,
            suggest=self._suggest,
            on_start=self._on_start,
            on_result=self._on_result,
            on_over=self._on_over,
        )
        judge = scheduler(
            sweep,
            steps=planned.experiment.budget.steps,
            report_every=planned.report_every,
            past=self._journal.trials,
            explore=self._explore,
        )
        run_trials(
            setting,
            order,
            judge,
            Limits(self._over),
            storage=Path(planned.site.outbox(name)).parent / "ray" / str(int(time.time())),
            on_driver_node=sweep.scheduler == "pbt",
        )

    def _suggest(self) -> Trial | None:
        trials = self._journal.trials
        if len(trials) >= self._sweep.trials or self._over() is not None:
            return None
        number = len(trials)
        values = self._search.next(trials, self._is_known)
        if values is None:
            return None
        run = self._planned.run(number, self._planned.trial(values))
        trial = Trial(number=number, values=values, run=run)
        self._journal.write(trial)
        return trial

    def _is_known(self, values: dict[str, str]) -> bool:
        if self._sweep.scheduler == "pbt":
            return any(trial.values == values for trial in self._journal.trials.values())
        run = self._planned.run(-1, self._planned.trial(values))
        return self._journal.of_run(run) is not None

    def _on_start(self, number: int) -> None:
        self._live.add(number)
        starts = self._journal.trials[number].starts + 1
        trial = self._journal.change(number, starts=starts)
        self._before[number] = trial.seconds
        self._progress.said("started", trial)

    def _on_result(self, number: int, report: Report) -> None:
        metrics = report["metrics"]
        for metric, _ in self._sweep.goals:
            if metric not in metrics:
                self.fatal = (
                    f"sweep.objectives={self._sweep.objectives!r}: trials report no {metric!r}"
                    f"{suggest(metric, metrics)}"
                )
        trial = self._journal.trials[number]
        lineage = trial.lineage
        if report["donor"] is not None and report["values"] != trial.values:
            lineage = (*lineage, (*report["donor"], report["values"]))
        kept = tuple(each for each in trial.curve if each[0] < report["step"])
        trial = self._journal.change(
            number,
            values=report["values"],
            curve=(*kept, (report["step"], metrics)),
            seconds=self._before[number] + report["seconds"],
            lineage=lineage,
        )
        self._progress.said("reported", trial)

    def _on_over(self, number: int, why: str | None) -> None:
        self._live.discard(number)
        trial = self._journal.trials[number]
        done = trial.step >= self._planned.experiment.budget.steps
        if done:
            trial = self._journal.change(number, state="finished")
        elif self._over() is not None:
            self._progress.said("left", trial)  # still "running": the next start goes on with it
            return
        elif why is not None:
            trial = self._journal.change(number, state="failed", why=why)
        else:
            by = f"{self._sweep.scheduler} at step {trial.step}"
            trial = self._journal.change(number, state="stopped", why=by)
            open_store(self._planned.site.run(trial.run)).write(STOP, b"")
        states = [each.state for each in self._journal.trials.values()]
        failures = states.count("failed")
        if failures >= FIRST_FAILURES and not {"finished", "stopped"} & set(states):
            self.fatal = f"the first {failures} trials all failed; the last: {trial.why}"
        self._progress.said(trial.state, trial)
        self._release()

    def _explore(self, config: dict[str, Any]) -> dict[str, Any]:
        """A clone's values: each is drawn anew, one time in four, or moved a little."""
        values = dict(config["values"])
        for domain in self._planned.space:
            if domain.path not in values:
                continue
            anew = random.random() < 0.25
            if domain.choices:
                at = domain.choices.index(values[domain.path]) + random.choice([-1, 1])
                near = domain.choices[min(max(at, 0), len(domain.choices) - 1)]
                values[domain.path] = random.choice(domain.choices) if anew else near
            else:
                values[domain.path] = domain.text(
                    domain.at(random.random())
                    if anew
                    else domain.clipped(float(values[domain.path]) * random.choice([0.8, 1.25]))
                )
        return {"values": values}

    def _over(self) -> str | None:
        """Why the sweep is to end now, if it is."""
        if self.fatal:
            return self.fatal
        if self._asked is not None and (not self._live or time.monotonic() - self._asked > STOP_S):
            return "stopped"
        cost = self._cost()
        for limit in ("hours", "gpu_hours", "usd"):
            most = getattr(self._sweep, limit)
            if most is not None and cost.get(f"cost/{limit}", 0.0) >= most:
                return f"sweep.{limit}={most:g} is spent"
        return None

    def _cost(self) -> dict[str, float]:
        """What the sweep took so far. hours: of the trials, added up, and GPUs by their workers."""
        trials = list(self._journal.trials.values())
        resources = self._planned.experiment.resources
        hours = sum(trial.seconds for trial in trials) / 3600
        gpus = resources.num_workers.minimum * resources.use_gpu
        out = {"cost/hours": hours, "cost/gpu_hours": hours * gpus}
        price = self._sweep.usd_per_gpu_hour
        return out if price is None else out | {"cost/usd": hours * gpus * price}

    def _verdict(self) -> str:
        if self.fatal:
            return "FAILED"
        states = {trial.state for trial in self._journal.trials.values()}
        if "finished" not in states:
            reasons = [trial.why for trial in self._journal.trials.values() if trial.why]
            self.fatal = self._over() or f"no trial finished: {reasons[0] if reasons else ''}"
            return "FAILED"
        return "FINISHED"

    def _release(self) -> None:
        """Frees what trials that are over still hold."""
        over = {t.run for n, t in self._journal.trials.items() if n not in self._live}
        for run in release(over):
            self._progress.note(f"freed the placement group that {run} had left")

    def _crown(self, best: Trial) -> None:
        """Registers the best trial's model, under the alias `best`."""
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
        register(tracker, experiment, store)

        def crown(mlflow: Any, run_id: str) -> None:
            name, version = mlflow.get_run(run_id).data.tags[MODEL_TAG].split("/")
            mlflow.set_registered_model_alias(name, BEST, version)

        tracker.do(crown, timeout_s=20)
        tracker.close(timeout_s=20)

    def _describe(self, tracker: Tracker) -> None:
        """What defines the sweep as params; what may change from start to start as tags."""
        sweep = self._sweep
        (metric, mode), *_ = sweep.goals
        fixed = {k: v for k, v in identity(sweep).items() if isinstance(v, str | int | float)}
        params = {f"sweep.{name}": value for name, value in fixed.items() if name != "about"}
        space = {f"space.{path}": text for path, text in sweep.space.items()}
        tracker.params({"metric": metric, "mode": mode, **params, **space})
        limits = ("trials", "concurrent", "hours", "gpu_hours", "usd", "machine")
        tracker.tags({f"sweep.{name}": getattr(sweep, name) for name in limits})
        tracker.tags({SWEEP_TAG: self._planned.name, "orchestrator.kind": "sweep"})


def slots(planned: Planned) -> Any:
    """How many trials fit beside one another, as a function of now.

    Raises ValueError with the numbers where not even one does.
    """
    import ray

    resources = planned.experiment.resources
    lowest = resources.num_workers.minimum
    need = {"CPU": lowest * resources.cpus_per_worker, "GPU": lowest * int(resources.use_gpu)}
    need = {kind: count for kind, count in need.items() if count}
    have, free = ray.cluster_resources(), ray.available_resources()
    fit = min(int(have.get(kind, 0) // count) for kind, count in need.items())
    if not fit:
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
        room = max(1, min(rooms))
        return room if most is None else min(room, most)

    return now
