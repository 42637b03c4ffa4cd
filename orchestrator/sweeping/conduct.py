"""What a sweep decides as it goes: which trial comes next, what an end of one means, when all ends.

Every event of a trial goes to the journal first. A failing trial does not stop the others, but the
first few all failing, or a metric that is not among what trials report, ends the sweep: more trials
would only cost more. This room knows neither Ray nor MLflow.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypedDict

from orchestrator.history import STOP
from orchestrator.overrides import suggest
from orchestrator.sweeping.journal import Journal, Trial
from orchestrator.sweeping.plan import Planned
from orchestrator.sweeping.search import Search
from shards.storage import open_store

FIRST_FAILURES = 3  # that end a sweep of which nothing finished
STOP_S = 25.0  # that running trials have to save when the sweep is told to stop


class Report(TypedDict):
    """What a trial tells at a time. seconds: since its last report, or its start.

    donor: (step, number of the trial whose weights it went on from), where it did.
    """

    step: int
    metrics: dict[str, float]
    values: dict[str, str]
    seconds: float
    donor: tuple[int, int] | None


class Conduct:
    """One start of a sweep.

    say: told (event, trial). live: the trials that are driven now. fatal: why the sweep cannot go
    on, if so. asked: when it was asked to stop, on the monotonic clock.
    """

    def __init__(
        self, planned: Planned, journal: Journal, say: Callable[[str, Trial], None]
    ) -> None:
        self._planned = planned
        self._sweep = planned.sweep
        self._journal = journal
        self._search = Search(planned.sweep, planned.space)
        self._say = say
        self.live: set[int] = set()
        self.asked: float | None = None
        self.fatal = ""

    def stop(self) -> None:
        """Has every running trial save; the sweep ends when they have, or a while later."""
        if self.asked is not None:
            self.asked = -STOP_S  # twice: now
            return
        self.asked = time.monotonic()
        for number in self.live:
            open_store(self._planned.site.run(self._journal.trials[number].run)).write(STOP, b"")

    def next_trial(self) -> Trial | None:
        """The trial to drive next, said to be driven: first those that a start before left running,
        then new ones. None where there is, or should be, none."""
        if self._is_ending:
            return None
        left = (t for t in self._journal.trials.values() if t.state == "running")
        trial = next((t for t in left if t.number not in self.live), None) or self._new()
        if trial is None:
            return None
        self.live.add(trial.number)
        trial = self._journal.change(trial.number, starts=trial.starts + 1)
        self._say("started", trial)
        return trial

    @property
    def _is_ending(self) -> bool:
        return self.asked is not None or self.over() is not None

    def _new(self) -> Trial | None:
        """A suggestion, written to the journal."""
        trials = self._journal.trials
        if len(trials) >= self._sweep.trials:
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
        if any(trial.values == values for trial in self._journal.trials.values()):
            return True
        if self._sweep.scheduler == "pbt":
            return False
        run = self._planned.run(-1, self._planned.trial(values))
        return self._journal.of_run(run) is not None

    def on_result(self, number: int, report: Report) -> None:
        """A trial reports."""
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
            seconds=trial.seconds + report["seconds"],
            lineage=lineage,
        )
        self._say("reported", trial)

    def on_over(self, number: int, why: str | None) -> None:
        """A trial is driven no more. why: what failed it, if something did."""
        self.live.discard(number)
        trial = self._journal.trials[number]
        done = trial.step >= self._planned.experiment.budget.steps
        if done:
            trial = self._journal.change(number, state="finished")
        elif self._is_ending:
            self._say("left", trial)  # still "running": the next start goes on with it
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
        self._say(trial.state, trial)

    def explore(self, config: dict[str, Any]) -> dict[str, Any]:
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

    def over(self) -> str | None:
        """Why the sweep is to end now, if it is."""
        if self.fatal:
            return self.fatal
        if self.asked is not None and (not self.live or time.monotonic() - self.asked > STOP_S):
            return "stopped"
        cost = self.cost()
        for limit in ("hours", "gpu_hours", "usd"):
            most = getattr(self._sweep, limit)
            if most is not None and cost.get(f"cost/{limit}", 0.0) >= most:
                return f"sweep.{limit}={most:g} is spent"
        return None

    def cost(self) -> dict[str, float]:
        """What the sweep took so far. hours: of the trials, added up, and GPUs by their workers."""
        trials = list(self._journal.trials.values())
        resources = self._planned.experiment.resources
        hours = sum(trial.seconds for trial in trials) / 3600
        gpus = resources.num_workers.minimum * resources.use_gpu
        out = {"cost/hours": hours, "cost/gpu_hours": hours * gpus}
        price = self._sweep.usd_per_gpu_hour
        return out if price is None else out | {"cost/usd": hours * gpus * price}

    def verdict(self) -> str:
        """The status of the sweep that has come to its end, as MLflow knows it."""
        if self.asked is not None:
            return "KILLED"
        if self.fatal:
            return "FAILED"
        states = {trial.state for trial in self._journal.trials.values()}
        if "finished" not in states:
            reasons = [trial.why for trial in self._journal.trials.values() if trial.why]
            self.fatal = self.over() or f"no trial finished: {reasons[0] if reasons else ''}"
            return "FAILED"
        return "FINISHED"
