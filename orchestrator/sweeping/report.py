"""A sweep's own run in MLflow: definition, table, best trial, cost, plots and the gallery.

What is shown is a function of the journal. A thread refreshes it while the sweep runs, so that
drawing never holds up a trial; each trial's MLflow run bears its place in the sweep as tags.
"""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from orchestrator.config import Experiment, flat
from orchestrator.mlflow_runs import find_run
from orchestrator.overrides import parse_value
from orchestrator.reporter import SAMPLES
from orchestrator.site import Site
from orchestrator.sweeping.gallery import gallery
from orchestrator.sweeping.journal import Journal, Trial
from orchestrator.sweeping.plots import plots
from orchestrator.sweeping.rows import AxisKind, Swept, TrialRow
from orchestrator.sweeping.space import Space
from orchestrator.sweeps import Sweep
from orchestrator.tracking import Tracker
from shards.storage import open_store

REFRESH_S = 30.0
NOTE_CHARACTERS = 8000  # more MLflow cuts off; trials.md has all
SWEEP_TAG = "orchestrator.sweep"
PARENT_TAG = "mlflow.parentRunId"
_log = logging.getLogger(__name__)


def tags_of_trial(sweep: str, parent: str, number: int) -> dict[str, Any]:
    """What a trial's MLflow run is tagged with from its start."""
    return {
        SWEEP_TAG: sweep,
        PARENT_TAG: parent,
        "orchestrator.trial": number,
        "orchestrator.trial_state": "running",
        "orchestrator.rung": 0,
    }


class Table:
    """The trials of a sweep as plain rows."""

    def __init__(
        self, sweep: Sweep, space: Space, experiment: Experiment, rung_steps: tuple[int, ...]
    ) -> None:
        self.sweep = sweep
        self.rung_steps = rung_steps
        self._typed = flat(experiment)
        metric, mode = sweep.goals[0]
        kinds: dict[str, AxisKind] = {
            d.path: "choice" if d.choices else "log" if d.log else "linear" for d in space
        }
        self.swept = Swept(kinds=kinds, metric=metric, mode=mode)

    def value(self, path: str, text: str) -> Any:
        """A value as the type of its field."""
        kind = type(self._typed.get(path))
        try:
            return parse_value(path, text, kind if kind in (int, float, bool) else str)
        except ValueError:
            return text

    def row(self, trial: Trial) -> TrialRow:
        """One trial."""
        metric = self.swept.metric
        return TrialRow(
            number=trial.number,
            name=trial.run,
            values={path: self.value(path, text) for path, text in trial.values.items()},
            metric=trial.last(metric),
            state=trial.state,
            rung=self.rung(trial),
            seconds=trial.seconds,
            curve=[(step, m[metric]) for step, m in trial.curve if metric in m],
        )

    def rung(self, trial: Trial) -> int:
        """How many rungs the trial came to."""
        return sum(step <= trial.step for step in self.rung_steps)

    def best(self, trials: Mapping[int, Trial]) -> Trial | None:
        """The finished trial with the best last value; of several objectives, by the first."""
        rows = [self.row(trial) for trial in trials.values() if trial.state == "finished"]
        best = self.swept.best(rows)
        return None if best is None else trials[best.number]

    def front(self, trials: Mapping[int, Trial]) -> list[Trial]:
        """Of several objectives: the finished trials that no other is better than in all."""
        done = [t for t in trials.values() if t.state == "finished"]
        costs = {t.number: self._costs(t) for t in done}
        return [t for t in done if not any(_dominates(c, costs[t.number]) for c in costs.values())]

    def _costs(self, trial: Trial) -> tuple[float, ...]:
        signs = {"min": 1.0, "max": -1.0}
        values = [(trial.last(metric), signs[mode]) for metric, mode in self.sweep.goals]
        return tuple(float("inf") if v is None else s * v for v, s in values)

    def markdown(self, trials: Mapping[int, Trial]) -> str:
        """The table, the best first, as Markdown."""
        metrics = [metric for metric, _ in self.sweep.goals]
        sign = 1 if self.swept.mode == "min" else -1

        def worth(trial: Trial) -> tuple[bool, float]:
            value = trial.last(metrics[0])
            return value is None, 0.0 if value is None else sign * value

        head = ["trial", *self.swept.kinds, *metrics, "state", "step", "rung", "seconds", "run"]
        lines = [head, ["---"] * len(head)]
        for trial in sorted(trials.values(), key=worth):
            values = [trial.values.get(path, "") for path in self.swept.kinds]
            last = [trial.last(metric) for metric in metrics]
            state = f"{trial.state}: {trial.why}" if trial.why else trial.state
            lines.append(
                [
                    str(trial.number),
                    *values,
                    *("" if value is None else f"{value:.5g}" for value in last),
                    state.replace("|", "/").split("\n")[0][:120],
                    str(trial.step),
                    str(self.rung(trial)),
                    f"{trial.seconds:.0f}",
                    trial.run,
                ]
            )
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


class Parent:
    """The voice of a sweep's own MLflow run, until it is closed."""

    def __init__(
        self,
        name: str,
        table: Table,
        journal: Journal,
        site: Site,
        tracker: Tracker,
        cost: Callable[[], dict[str, float]],
    ) -> None:
        self._name = name
        self._table = table
        self._journal = journal
        self._site = site
        self._tracker = tracker
        self._cost = cost
        self._tagged: dict[int, dict[str, Any]] = {}
        self._shown = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sweep-report", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Shows all once more and ends the thread."""
        self._closing.set()
        self._thread.join()
        self._refresh()

    def _work(self) -> None:
        while not self._closing.wait(REFRESH_S):
            try:
                self._refresh()
            except Exception:  # a picture that cannot be drawn is no reason to end a sweep
                _log.exception("the sweep's page is not refreshed")

    def _refresh(self) -> None:
        trials = dict(self._journal.trials)
        state = json.dumps([(t.number, t.state, t.step) for t in trials.values()])
        if state == self._shown or not trials:
            return
        self._shown = state
        table, tracker = self._table, self._tracker
        rows = [table.row(trial) for trial in trials.values()]
        text = table.markdown(trials)
        tracker.notes(run=self._note(trials, text))
        tracker.tags(self._leading(trials))
        told = sum(len(trial.curve) for trial in trials.values())
        counts = {f"sweep/{s}": 0.0 for s in ("running", "finished", "stopped", "failed")}
        for trial in trials.values():
            counts[f"sweep/{trial.state}"] += 1
        best = table.best(trials)
        if best is not None:
            counts |= {f"best/{m}": v for m, v in best.curve[-1][1].items()}
        tracker.metrics(told, {**counts, **self._cost()})
        tracker.artifact("trials.md", text.encode())
        tracker.artifact("trials.json", json.dumps([_plain(row) for row in rows]).encode())
        for name, png in plots(rows, table.swept, table.rung_steps).items():
            tracker.artifact(f"plots/{name}", png)
        for name, data in self._galleries(rows).items():
            tracker.artifact(f"gallery/{name}", data)
        self._tag(trials)

    def _note(self, trials: Mapping[int, Trial], text: str) -> str:
        sweep = self._table.sweep
        cost = ", ".join(
            f"{name.split('/')[1]} {value:.3g}" for name, value in self._cost().items()
        )
        space = "\n".join(f"- `{path}`: {values}" for path, values in sweep.space.items())
        done = sum(trial.state != "running" for trial in trials.values())
        said = (
            f"**{sweep.about}**\n\n`{self._name}`: `{sweep.base}` over\n{space}\n\n"
            f"Looking for `{sweep.objectives}` by {sweep.searcher}, trials stopped by "
            f"{sweep.scheduler}. {done} of {len(trials)} trials are over; so far {cost}.\n\n"
            "Under Artifacts: `trials.md` is the table below, `gallery/` has every trial's samples "
            "of the same noise, `plots/` the curves. All of it beside each other: "
            f"`python -m orchestrator.compare {self._name}`.\n\n"
        )
        rows = text[: NOTE_CHARACTERS - len(said)]
        return said + (text if rows == text else rows.rpartition("\n")[0])

    def _leading(self, trials: Mapping[int, Trial]) -> dict[str, Any]:
        best = self._table.best(trials)
        if best is None:
            return {}
        several = len(self._table.sweep.goals) > 1
        front = [str(trial.number) for trial in self._table.front(trials)] if several else []
        values = ", ".join(f"{path}={value}" for path, value in best.values.items())
        out = {"sweep.best_trial": best.number, "sweep.best_run": best.run}
        out["sweep.best_values"] = values
        return out | ({"sweep.front": ",".join(front)} if several else {})

    def _galleries(self, rows: list[TrialRow]) -> dict[str, bytes]:
        sheets = []
        for row in rows:
            try:
                packed = open_store(self._site.run(row.name)).read(SAMPLES)
            except FileNotFoundError:
                continue
            with np.load(io.BytesIO(packed)) as kept:
                sheets.append((row, kept["clips"]))
        shapes = {clips.shape[1:] for _, clips in sheets}
        if len(shapes) != 1:
            return {}
        still, moving = gallery(sheets, self._table.swept, fps=12)
        return {"samples.png": still, "samples.gif": moving}

    def _tag(self, trials: Mapping[int, Trial]) -> None:
        def act(mlflow: Any, _run_id: str) -> None:
            for trial in trials.values():
                tags = {
                    "orchestrator.trial_state": trial.state,
                    "orchestrator.rung": str(self._table.rung(trial)),
                    "orchestrator.trial_starts": str(trial.starts),
                }
                if self._tagged.get(trial.number) == tags:
                    continue
                run = find_run(mlflow, trial.run)
                if run is not None:
                    for key, value in tags.items():
                        mlflow.set_tag(run.info.run_id, key, value)
                    self._tagged[trial.number] = tags

        self._tracker.do(act, timeout_s=5)


def _plain(row: TrialRow) -> dict[str, Any]:
    return {**vars(row), "values": dict(row.values), "curve": list(row.curve)}


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
