"""How a sweep goes, as it goes: a live table on a terminal, a line an event in a log, JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table as Grid

from orchestrator.config import Experiment
from orchestrator.sweeping.journal import Journal, Trial
from orchestrator.sweeping.report import Table

_SHOWN = 20  # trials of the live table, the running ones first


class Progress:
    """Told of every event of a sweep."""

    def __init__(
        self, table: Table, journal: Journal, experiment: Experiment, *, as_json: bool
    ) -> None:
        self._table = table
        self._journal = journal
        self._steps = experiment.budget.steps
        self._as_json = as_json
        self._began = time.monotonic()
        self._live: Live | None = None
        if sys.stdout.isatty() and not as_json:
            self._live = Live(console=Console(), get_renderable=self._grid, refresh_per_second=1)
            self._live.start()

    def said(self, event: str, trial: Trial) -> None:
        """Something happened to a trial."""
        metric = self._table.swept.metric
        facts = {
            "event": event,
            "trial": trial.number,
            "run": trial.run,
            "values": trial.values,
            "step": trial.step,
            "steps": self._steps,
            "rung": self._table.rung(trial),
            metric: trial.last(metric),
            "why": trial.why,
            "seconds": round(trial.seconds, 1),
        }
        if self._as_json:
            print(json.dumps(facts), flush=True)
        elif self._live is None and event != "reported":
            print(self._line(event, trial), flush=True)
        elif self._live is None and trial.step in (*self._table.rung_steps, self._steps):
            print(self._line(f"rung {self._table.rung(trial)}", trial), flush=True)

    def note(self, text: str) -> None:
        """Something that is no trial's."""
        if self._as_json:
            print(json.dumps({"event": "note", "text": text}), flush=True)
        elif self._live is not None:
            self._live.console.print(text)
        else:
            print(text, flush=True)

    def close(
        self,
        name: str,
        status: str,
        best: Trial | None,
        why: str,
        page: str,
        cost: dict[str, float],
    ) -> None:
        """The last word."""
        if self._live is not None:
            self._live.stop()
        states = [trial.state for trial in self._journal.trials.values()]
        counts = {state: states.count(state) for state in sorted(set(states))}
        metric = self._table.swept.metric
        found = None
        if best is not None:
            found = {"trial": best.number, "run": best.run, "values": best.values}
            found[metric] = best.last(metric)
        if self._as_json:
            result = {"sweep": name, "status": status, "trials": counts, "best": found}
            print(json.dumps({**result, "why": why, "mlflow": page, **cost}), flush=True)
            return
        print(f"{name}: {', '.join(f'{n} {state}' for state, n in counts.items()) or 'no trials'}")
        if why:
            print(f"  {why}")
        if status == "KILLED":
            print("  stopped; the same command goes on with it")
        if best is not None:
            print(f"  best:         {self._line('', best).strip()}")
            print(f"                {best.run}")
        spent = ", ".join(f"{key.split('/')[1]} {value:.3g}" for key, value in cost.items())
        print(
            f"  cost:         {spent}, {(time.monotonic() - self._began) / 60:.1f} min by the clock"
        )
        print(f"  MLflow:       {page}")
        print(f"  side by side: python -m orchestrator.compare {name}")

    def _line(self, event: str, trial: Trial) -> str:
        order = [path for path in self._table.swept.kinds if path in trial.values]
        values = "  ".join(f"{path}={trial.values[path]}" for path in order)
        metric = self._table.swept.metric
        last = trial.last(metric)
        told = "" if last is None else f"  {metric} {last:.5g} at step {trial.step}"
        why = f"  ({trial.why})" if trial.why else ""
        return f"trial {trial.number} {event}  {values}{told}{why}"

    def _left_s(self, trial: Trial) -> float | None:
        if not trial.step or trial.state != "running":
            return None
        return trial.seconds / trial.step * (self._steps - trial.step)

    def _grid(self) -> Any:
        metric = self._table.swept.metric
        grid = Grid(box=None, pad_edge=False)
        for head in ("trial", *self._table.swept.kinds, "state", "step", "rung", metric, "left"):
            grid.add_column(head)
        trials = list(self._journal.trials.values())
        trials.sort(key=lambda trial: (trial.state != "running", -trial.number))
        for trial in trials[:_SHOWN]:
            last, left_s = trial.last(metric), self._left_s(trial)
            grid.add_row(
                str(trial.number),
                *(trial.values.get(path, "") for path in self._table.swept.kinds),
                trial.state,
                f"{trial.step}/{self._steps}",
                str(self._table.rung(trial)),
                "" if last is None else f"{last:.5g}",
                "" if left_s is None else f"{left_s / 60:.1f} min",
            )
        return grid
