"""Accuracy against the share of labels that were used (figure 4b, 4c), from runs' evaluations."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

_LABELS = {
    "finetune": "fine-tuned",
    "random": "random initialisation",
    "logreg": "logistic regression",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run's: how it was trained, and its accuracy. begun: the experiment of `init_from`."""

    run: str
    mode: str
    begun: str | None
    fraction: float
    seed: int
    accuracy: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """Runs that differ by their seed alone. std: the sample standard deviation, 0 of one run."""

    fraction: float
    mean: float
    std: float
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One way to train, by share of the labels, ascending."""

    label: str
    mode: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """All series; gain is fine-tuned over random at the shares that both have, with the error that
    their two standard deviations propagate to."""

    series: tuple[Series, ...]
    gain: tuple[Point, ...]
    chance: float

    def plain(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


def curve_of(results: Sequence[Result]) -> Curve:
    """The curve of runs that were measured on the same data.

    Raises ValueError for none, and for one that is given twice, which would narrow the spread.
    """
    if not results:
        raise ValueError("--curve: give the runs of classifiers")
    names = [result.run for result in results]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"--curve: {twice[0]} is given twice")
    groups: dict[tuple[str, str | None], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.mode, result.begun].append(result)
    several = {mode for mode, _ in groups if sum(other == mode for other, _ in groups) > 1}
    series = [
        Series(
            label=_LABELS.get(mode, mode) + (f" from {begun}" if mode in several else ""),
            mode=mode,
            points=_points(members),
        )
        for (mode, begun), members in sorted(groups.items(), key=lambda item: _place(*item[0]))
    ]
    by_mode = {each.mode: each for each in reversed(series)}
    gain = _gain(by_mode.get("finetune"), by_mode.get("random"))
    return Curve(series=tuple(series), gain=gain, chance=results[0].chance)


def _place(mode: str, begun: str | None) -> tuple[int, str]:
    known = list(_LABELS)
    return known.index(mode) if mode in known else len(known), begun or ""


def _points(results: Sequence[Result]) -> tuple[Point, ...]:
    by_fraction: dict[float, list[Result]] = defaultdict(list)
    for result in sorted(results, key=lambda each: (each.fraction, each.seed)):
        by_fraction[result.fraction].append(result)
    points = []
    for fraction, members in by_fraction.items():
        values = [member.accuracy for member in members]
        points.append(
            Point(
                fraction=fraction,
                mean=fmean(values),
                std=stdev(values) if len(values) > 1 else 0.0,
                runs=tuple(member.run for member in members),
            )
        )
    return tuple(points)


def _gain(finetuned: Series | None, random: Series | None) -> tuple[Point, ...]:
    if finetuned is None or random is None:
        return ()
    base = {point.fraction: point for point in random.points}
    out = []
    for point in finetuned.points:
        other = base.get(point.fraction)
        if other is None or other.mean == 0 or point.mean == 0:
            continue
        ratio = point.mean / other.mean
        relative = math.hypot(point.std / point.mean, other.std / other.mean)
        runs = point.runs + other.runs
        out.append(Point(fraction=point.fraction, mean=ratio, std=ratio * relative, runs=runs))
    return tuple(out)
