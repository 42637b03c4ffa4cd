"""What a sweep remembers: its definition and every trial, in its own folder of RUNS_ROOT.

Each trial is one object, rewritten whenever something happens to it, and written before it happens
elsewhere: a suggestion before its run is started, a report before a scheduler judges by it. A sweep
that is started again reads it all and goes on; nothing else of a sweep has to survive.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from shards.storage import Store

State = Literal["running", "stopped", "finished", "failed"]
_DEFINITION = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial. values: its overrides by path. run: its name.

    state: "running" until it is over, also while nobody drives it; "stopped" by the scheduler or a
    budget. why: what stopped or failed it. curve: (step, metrics) of every report. seconds: that it
    was driven. starts: of its driver. lineage: of pbt, (step, number of the trial whose weights it
    went on from, its values then).
    """

    number: int
    values: dict[str, str]
    run: str
    state: State = "running"
    why: str = ""
    curve: tuple[tuple[int, dict[str, float]], ...] = ()
    seconds: float = 0.0
    starts: int = 0
    lineage: tuple[tuple[int, int, dict[str, str]], ...] = ()

    @property
    def id(self) -> str:
        """As Ray Tune knows it."""
        return f"{self.number:05d}"

    @property
    def step(self) -> int:
        """Of the last report; 0 before."""
        return self.curve[-1][0] if self.curve else 0

    def last(self, metric: str) -> float | None:
        """The last value of a metric, where it was reported."""
        return self.curve[-1][1].get(metric) if self.curve else None


class Journal:
    """The trials of one sweep, by number."""

    def __init__(self, store: Store, definition: dict[str, Any]) -> None:
        """Raises ValueError where the folder is another sweep's, or was written by a version that
        defines it otherwise."""
        self._store = store
        text = json.dumps(definition, sort_keys=True, indent=1).encode()
        if not store.write_new(_DEFINITION, text):
            found = json.loads(store.read(_DEFINITION))
            changed = _differences(found, json.loads(text))
            if changed:
                raise ValueError(
                    f"{store.location} is a sweep of another definition: "
                    f"{'; '.join(changed[:5])}. Start this one under another name, or remove it"
                )
        names = sorted(name for name, _ in store.list("trials/"))
        self.trials = {trial.number: trial for trial in map(self._read, names)}

    def write(self, trial: Trial) -> None:
        """Keeps a trial as it is now."""
        self.trials[trial.number] = trial
        text = json.dumps(dataclasses.asdict(trial), sort_keys=True)
        self._store.write(f"trials/{trial.number:05d}.json", text.encode())

    def change(self, number: int, **changes: Any) -> Trial:
        """Keeps a trial with some fields changed; as it is now."""
        trial = dataclasses.replace(self.trials[number], **changes)
        self.write(trial)
        return trial

    def of_run(self, run: str) -> Trial | None:
        """The trial that is this run."""
        return next((trial for trial in self.trials.values() if trial.run == run), None)

    def _read(self, name: str) -> Trial:
        facts = json.loads(self._store.read(name))
        facts["curve"] = tuple((step, metrics) for step, metrics in facts["curve"])
        facts["lineage"] = tuple((step, of, values) for step, of, values in facts["lineage"])
        return Trial(**facts)


def _differences(theirs: Any, ours: Any, path: str = "") -> list[str]:
    """`path: theirs, here ours` wherever two JSON values differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for name in sorted(theirs.keys() | ours.keys())
            for line in _differences(theirs.get(name), ours.get(name), f"{path}.{name}".lstrip("."))
        ]
    return [] if theirs == ours else [f"{path}: {theirs!r}, here {ours!r}"]
