"""A trial's actor, as Ray Tune has it: it drives the same run as the command does, in a thread.

It waits for the reports in the run's store, and hands them to Tune. Weights that a trial takes over
from another (pbt) are the other run's checkpoint.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from orchestrator.checkpoint import Checkpoints
from orchestrator.claims import claimed
from orchestrator.config import Experiment
from orchestrator.history import STOP, History
from orchestrator.launch import Outcome, drive, finished_result, new_job
from orchestrator.site import Site
from orchestrator.sweeping.conduct import Report
from orchestrator.sweeping.plan import dataset_version
from shards.storage import is_remote, open_store

STOP_GRACE_S = 25.0  # for the workers of a stopped trial to leave by themselves
_POLL_S, _REMOTE_POLL_S = 0.25, 2.0  # a list of an object store is paid for


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every trial of a sweep has in common, as its actor receives it.

    experiment: by number and values, the resolved one. tags: of a trial's MLflow run, by number.
    """

    site: Site
    report_every: int
    experiment: Callable[[Mapping[str, str]], Experiment]
    run: Callable[[int, Experiment], str]
    tags: Callable[[int], dict[str, Any]]


class Driving(threading.Thread):
    """Drives one run, as the command does. outcome, error: how that ended."""

    def __init__(self, setting: Setting, number: int, experiment: Experiment) -> None:
        super().__init__(name=setting.run(number, experiment), daemon=True)
        self._setting = setting
        self._number = number
        self._experiment = experiment
        self.store = open_store(setting.site.run(self.name))
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        if finished_result(self.store) is not None:
            return
        site, every = self._setting.site, self._setting.report_every
        try:
            version = dataset_version(site, self._experiment)
            job = new_job(self._experiment, site, self.name, version, report_every=every)
            tags = self._setting.tags(self._number)
            self.outcome = drive(job, tags=tags, registers=False)
        except BaseException as error:  # a thread's exception is nobody's
            self.error = error

    def ask_to_leave(self) -> None:
        """Has the workers save and leave."""
        if self.is_alive():
            self.store.write(STOP, b"")

    @property
    def why(self) -> str:
        """Why a run that is not finished ended."""
        if self.error is not None:
            return f"failed: {type(self.error).__name__}: {self.error}"
        return self.outcome.why if self.outcome is not None else "failed: its driver ended"


class Driver(tune.Trainable):  # type: ignore[misc]
    """A trial's actor. Its config is {"values", "told": the step that is reported already}, its
    number the trial's id.

    Tune's result has "step" and the metrics for a scheduler, and "report", a Report as JSON, since
    Tune flattens what is nested. The last one has "done" and, unless the run is finished, "why".
    """

    def setup(self, config: dict[str, Any], setting: Setting) -> None:
        """Begins nothing yet: Tune may still say whose weights to go on from."""
        self._setting = setting
        self._before: Driving | None = None
        self._set(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Becomes the actor of another trial, which saves it the imports."""
        if self._driving.ident is not None:
            self._before = self._driving
            self._before.ask_to_leave()
        self._set(new_config)
        return True

    def _set(self, config: dict[str, Any]) -> None:
        self._number = int(self.trial_id)
        self._values = dict(config["values"])
        experiment = self._setting.experiment(self._values)
        self._steps = experiment.budget.steps
        self._driving = Driving(self._setting, self._number, experiment)
        self._store = self._driving.store
        self._history = History(self._store)
        self._told = config.get("told", 0)
        self._donor: tuple[int, int] | None = None

    def step(self) -> dict[str, Any]:
        """The next report, as soon as there is one."""
        if self._driving.ident is None:
            self._await_the_one_before()
            self._since = time.monotonic()
            self._driving.start()
        while True:
            over = not self._driving.is_alive()
            for step, metrics in self._history.reported(self._told):
                self._told = step
                done = step == self._steps
                if done:
                    self._driving.join(60)
                return self._result(step, metrics, done=done)
            if over:
                return self._ending()
            time.sleep(_REMOTE_POLL_S if is_remote(self._setting.site.runs_root) else _POLL_S)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Names the run's checkpoint of the last report; the weights stay where they are."""
        store, deadline = Checkpoints(self._store, keep=2), time.monotonic() + 60
        while self._told not in store.steps() and time.monotonic() < deadline:
            time.sleep(_POLL_S)  # it is being written
        steps = [step for step in store.steps() if step <= self._told]
        named = {"run": self._driving.name, "number": self._number, "step": max(steps, default=0)}
        Path(checkpoint_dir, "of.json").write_text(json.dumps(named))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Goes on from another trial's weights and moments, at its step."""
        named, own = json.loads(Path(checkpoint_dir, "of.json").read_text()), self._driving.name
        if named["run"] == own:
            return
        self._await_the_one_before()
        while own in claimed():  # the workers that trained with the values before
            time.sleep(_POLL_S)
        adopt(self._setting.site, named["run"], named["step"], own)
        self._told, self._donor = named["step"], (named["step"], named["number"])

    def cleanup(self) -> None:
        """Has the workers save and leave; who does not in time is ended with this process."""
        self._driving.ask_to_leave()
        if self._driving.ident is not None:
            self._driving.join(STOP_GRACE_S)

    def _await_the_one_before(self) -> None:
        """Raises RuntimeError where the workers of the trial before do not leave: Tune starts this
        trial again in another actor then, which it would not for an error of `reset_config`, and
        with this actor they end."""
        if self._before is not None:
            self._before.join(STOP_GRACE_S)
            if self._before.is_alive():
                raise RuntimeError(f"the workers of {self._before.name} do not leave")
            self._before = None

    def _ending(self) -> dict[str, Any]:
        finished = finished_result(self._store)
        if finished is not None:  # by a start that did not report
            return self._result(finished["steps"], finished["metrics"], done=True)
        return {"done": True, "why": self._driving.why}

    def _result(self, step: int, metrics: dict[str, float], *, done: bool) -> dict[str, Any]:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        report = Report(
            step=step, metrics=metrics, values=self._values, seconds=seconds, donor=self._donor
        )
        return {**metrics, "step": step, "report": json.dumps(report), "done": done}


def adopt(site: Site, donor: str, step: int, run: str) -> None:
    """Makes the donor's checkpoint of `step` the newest of `run`, whose later past is forgotten.

    Raises FileNotFoundError or ValueError where the donor's is gone or damaged.
    """
    store = open_store(site.run(run))
    taken = Checkpoints(open_store(site.run(donor)), keep=2).load(step)
    for name, _ in list(store.list("checkpoints/")):
        if int(name.split("/")[1]) >= step:
            store.delete(name)
    History(store).forget_reports(step)
    Checkpoints(store, keep=10).save(step, taken.state, taken.facts)
