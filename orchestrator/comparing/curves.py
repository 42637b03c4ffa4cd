"""Histories as a chart shows them: a column of pixels has a least and a greatest value.

The steps are cut into columns of equal width, the same for all runs. Where no column has two
points, a curve is the history itself. Where columns are as fine as a screen's, it goes through the
extremes of each, so nothing is lost. Of so many curves that columns must be coarse, it goes through
the means and through the extremes that stand out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SCREEN, LEAST, POINTS = 500, 40, 60_000  # columns at most and at least; points on a whole page
_STANDS_OUT = 3.0  # times as far from the mean as the extremes of a run's columns usually are


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A history by columns, each float64 (n,), ascending in step. first, last: the steps of a
    column's first and last point; low, high, mean: of its values."""

    first: Floats
    last: Floats
    low: Floats
    high: Floats
    mean: Floats

    @classmethod
    def of(cls, table: Floats) -> Columns:
        """Of (5, n): first, last, low, high, mean."""
        first, last, low, high, mean = table
        return cls(first=first, last=last, low=low, high=high, mean=mean)


@dataclass(frozen=True, kw_only=True)
class Path:
    """A curve as it is drawn, float64 (n,) each."""

    steps: Floats
    values: Floats


@dataclass(frozen=True, kw_only=True)
class Band:
    """Several curves as one: their mean and sample standard deviation, float64 (n,) each."""

    steps: Floats
    mean: Floats
    sd: Floats


def column_width(last_step: int, curves: int) -> tuple[int, bool]:
    """(how many steps a column is wide, whether that is coarse), so that `curves` of them have
    about POINTS points."""
    coarse = 2 * SCREEN * curves > POINTS
    columns = max(LEAST, min(SCREEN, POINTS // curves)) if coarse else SCREEN
    return -(-(last_step + 1) // columns), coarse


def columns_of(steps: NDArray[np.int64], values: Floats, width: int) -> Columns:
    """The history, ascending in step, in columns of `width` steps; without what is not finite."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if not len(steps):
        return Columns.of(np.zeros((5, 0)))
    starts = np.flatnonzero(np.diff(steps // width, prepend=-1))
    counts = np.diff([*starts, len(steps)])
    ends = starts + counts - 1
    return Columns(
        first=steps[starts].astype(np.float64),
        last=steps[ends].astype(np.float64),
        low=np.minimum.reduceat(values, starts),
        high=np.maximum.reduceat(values, starts),
        mean=np.add.reduceat(values, starts) / counts,
    )


def path_of(columns: Columns, *, coarse: bool) -> Path:
    """The curve through the columns. Of two extremes the nearer to what came before is first, since
    which of them it really was is not known."""
    steps: list[float] = []
    values: list[float] = []
    up, down = columns.high - columns.mean, columns.mean - columns.low
    usual = _STANDS_OUT * float(np.median(np.concatenate([up, down]))) if len(up) else 0.0
    for n, (first, last) in enumerate(zip(columns.first, columns.last, strict=True)):
        low, high, mean = float(columns.low[n]), float(columns.high[n]), float(columns.mean[n])
        through = [low, high]
        if coarse:
            through = [high] if up[n] > usual else [mean]
            through = [low, *through] if down[n] > usual else through
        if low == high:
            through = [low]
        if values and abs(values[-1] - through[-1]) < abs(values[-1] - through[0]):
            through.reverse()
        steps += (
            [first, last] if len(through) == 2 else [first if low == high else (first + last) / 2]
        )
        values += through
    return Path(steps=np.array(steps), values=np.array(values))


def band_of(members: Sequence[Columns], width: int) -> Band | None:
    """Mean and deviation, column by column, as far as all of several runs have come."""
    if len(members) < 2:
        return None
    by_column = [dict(zip(c.first // width, range(len(c.first)), strict=True)) for c in members]
    shared = sorted(set.intersection(*(set(each) for each in by_column)))
    if not shared:
        return None
    means = np.array(
        [
            [c.mean[places[column]] for column in shared]
            for c, places in zip(members, by_column, strict=True)
        ]
    )
    steps = np.array([members[0].first[by_column[0][column]] for column in shared])
    return Band(steps=steps, mean=means.mean(0), sd=means.std(0, ddof=1))


def packed(arrays: Sequence[Floats]) -> Mapping[str, object]:
    """Arrays as one base64 text of little-endian float32, and their lengths."""
    joined = np.concatenate([*arrays, np.zeros(0)]).astype("<f4")
    text = base64.b64encode(joined.tobytes()).decode()
    return {"lengths": [len(each) for each in arrays], "float32": text}


@dataclass(frozen=True, kw_only=True)
class MetricCurves:
    """The curves of a metric. width: of a column, in steps; coarse: see above; exact: no column has
    two points.
    paths: by the place of the run; bands: by the place of the configuration."""

    metric: str
    width: int
    coarse: bool
    exact: bool
    paths: Mapping[int, Path]
    bands: Mapping[int, Band]


def metric_curves(
    metric: str,
    columns: Mapping[int, Columns],
    width: int,
    coarse: bool,
    configurations: Sequence[Sequence[int]],
) -> MetricCurves:
    """columns: by the place of the run. configurations: the places of each one's runs."""
    bands = {}
    for n, members in enumerate(configurations):
        band = band_of([columns[place] for place in members if place in columns], width)
        if band is not None:
            bands[n] = band
    return MetricCurves(
        metric=metric,
        width=width,
        coarse=coarse,
        exact=all(bool((each.first == each.last).all()) for each in columns.values()),
        paths={place: path_of(each, coarse=coarse) for place, each in columns.items()},
        bands=bands,
    )
