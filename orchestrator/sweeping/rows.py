"""A sweep's trials as plain values, and the axes that their parameters lie on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.ticker import MaxNLocator

Scalar = bool | int | float | str | None
AxisKind = Literal["log", "linear", "choice"]
Mode = Literal["min", "max"]
State = Literal["running", "stopped", "finished", "failed"]


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial. values: of the swept parameters that it has, by dotted path. metric: its last
    value, None where it told none. curve: that metric as (step, value), ascending in step."""

    number: int
    name: str
    values: Mapping[str, Scalar]
    metric: float | None
    state: State
    rung: int
    seconds: float
    curve: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep varies, in the order of its definition, and what it looks for.

    kinds: by dotted path; of a choice only the order of its values counts, not their distances.
    """

    kinds: Mapping[str, AxisKind]
    metric: str
    mode: Mode

    def short(self, path: str) -> str:
        """The last part of the path, where no other parameter has the same."""
        last = path.rpartition(".")[2]
        several = sum(each.rpartition(".")[2] == last for each in self.kinds) > 1
        return path if several else last

    def told(self, row: TrialRow) -> str:
        """The trial's values, as `mask_lambda 0.1, width 16`."""
        return ", ".join(
            f"{self.short(path)} {label(row.values[path])}"
            for path in self.kinds
            if path in row.values
        )

    def best(self, rows: Sequence[TrialRow]) -> TrialRow | None:
        """Of the finished trials with a finite metric, else of all with one, since an early value
        of a trial that was stopped is no result; the first of equals; None of none."""
        sign = 1 if self.mode == "min" else -1
        known = measured(rows)
        done = [row for row in known if row.state == "finished"]
        return min(done or known, key=lambda row: sign * value_of(row), default=None)


def measured(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The trials whose metric is a finite number, by their number."""
    good = [row for row in rows if row.metric is not None and math.isfinite(row.metric)]
    return sorted(good, key=lambda row: row.number)


def value_of(row: TrialRow) -> float:
    """The metric of a trial that is `measured`."""
    assert row.metric is not None
    return row.metric


def label(value: Scalar) -> str:
    """A value as it is written beside an axis."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none" if value is None else str(value)


class Axis:
    """Where the values of one parameter lie in [0, 1], as its kind spaces them.

    A log axis with a value that has no logarithm, or any axis of what is not numbers, is a choice.
    """

    def __init__(self, path: str, rows: Sequence[TrialRow], kind: AxisKind) -> None:
        self.path = path
        present = [row.values[path] for row in rows if path in row.values]
        distinct = sorted(set(present), key=_order)
        numbers = [
            float(each)
            for each in distinct
            if isinstance(each, int | float) and not isinstance(each, bool)
        ]
        if len(numbers) < len(distinct) or (kind == "log" and min(numbers, default=1) <= 0):
            kind = "choice"
        self.kind: AxisKind = kind
        self.levels = distinct
        self._low, self._high = (min(numbers), max(numbers)) if numbers else (0.0, 0.0)

    def at(self, value: Scalar) -> float:
        """Its place, 0.5 where all values are one."""
        if len(self.levels) < 2:
            return 0.5
        if self.kind == "choice":
            return self.levels.index(value) / (len(self.levels) - 1)
        assert isinstance(value, int | float)
        return self._unit(float(value))

    def ticks(self) -> list[tuple[float, str]]:
        """(place, text) of round values; of a choice every level."""
        if self.kind == "choice" or len(self.levels) < 2:
            return [(self.at(level), label(level)) for level in self.levels]
        if self.kind == "linear":
            steps = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(self._low, self._high)
            marks = [float(step) for step in steps]
        else:
            low, high = math.floor(math.log10(self._low)), math.ceil(math.log10(self._high))
            few = (1, 2, 5) if self._high / self._low < 100 else (1,)
            marks = [m * 10.0**power for power in range(low, high + 1) for m in few]
        inside = [mark for mark in marks if self._low * (1 - 1e-9) <= mark <= self._high + 1e-12]
        return [(self._unit(mark), f"{mark:.3g}") for mark in inside]

    def _unit(self, value: float) -> float:
        low, high = self._low, self._high
        if self.kind == "log":
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


def _order(value: Scalar) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return 0, float(value), str(value)
    return 1, 0.0, str(value)
