"""Runs beside each other as a value: what differs, which is best, with the seeds' spread.

Runs that are equal but for `seed` are one configuration.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from orchestrator.comparing.histories import RunRecord
from orchestrator.overrides import suggest

Mode = Literal["min", "max"]
SEED = "seed"
_USUAL = (  # where nobody says what is looked for
    "val/accuracy",
    "val/reconstruction",
    "train/loss",
    "train/objective",
    "train/reconstruction",
    "train/g_loss",
)
_HIGHER = ("accuracy", "score", "psnr", "ssim", "elbo", "rating", "preferred", "fraction")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of a metric's last values over the runs of a configuration. sd: sample deviation, None of
    one run."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Runs that differ by their seed alone, by their places in `Comparison.runs`."""

    values: Mapping[str, str | None]
    members: tuple[int, ...]
    metrics: Mapping[str, Spread]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """differing: the parameters that are not the same in all runs, `seed` not among them; same: the
    others, with their value. metric, mode: by which the best one is; why: who says so.
    configurations: in the order of their first runs. best: the best one's place, None where no run
    has told the metric; best_run: its best run's. metrics: every name, the most telling first."""

    runs: tuple[RunRecord, ...]
    differing: tuple[str, ...]
    same: Mapping[str, str]
    metric: str
    mode: Mode
    why: str
    configurations: tuple[Configuration, ...]
    best: int | None
    best_run: int | None
    metrics: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """Which way the metric is better."""
        return "lower is better" if self.mode == "min" else "higher is better"


def compared(
    runs: Sequence[RunRecord],
    sweep: RunRecord | None = None,
    *,
    metric: str | None = None,
    mode: Mode | None = None,
) -> Comparison:
    """The comparison. metric, mode: None for the sweep's, else the experiments', else a usual one.

    Raises ValueError naming the metrics that there are, where no run has `metric`.
    """
    with_experiment = [{"experiment": run.experiment, **run.params} for run in runs]
    paths = sorted({path for params in with_experiment for path in params})
    values = {path: [params.get(path) for params in with_experiment] for path in paths}
    differing = tuple(p for p in paths if len(set(values[p])) > 1 and p != SEED)
    chosen, way, why = _looked_for(runs, sweep, metric, mode)
    groups: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for place in range(len(runs)):
        groups[tuple(values[path][place] for path in differing)].append(place)
    names = _names(runs, chosen)
    configurations = tuple(
        Configuration(
            values=dict(zip(differing, key, strict=True)),
            members=tuple(places),
            metrics={name: s for name in names if (s := _spread(runs, places, name))},
        )
        for key, places in groups.items()
    )
    best, best_run = _best(runs, configurations, chosen, way)
    return Comparison(
        runs=tuple(runs),
        differing=differing,
        same={p: str(values[p][0]) for p in paths if p not in differing and p != SEED},
        metric=chosen,
        mode=way,
        why=why,
        configurations=configurations,
        best=best,
        best_run=best_run,
        metrics=names,
    )


def _looked_for(
    runs: Sequence[RunRecord], sweep: RunRecord | None, metric: str | None, mode: Mode | None
) -> tuple[str, Mode, str]:
    """(metric, mode, who says so)."""
    there = {name for run in runs for name in run.metrics}
    if metric is not None:
        if metric not in there:
            raise ValueError(f"--metric {metric}: no run has told it{suggest(metric, there)}")
        return metric, mode or _usual_mode(metric), "as asked for"
    if sweep is not None and sweep.params.get("metric") in there:
        way: Mode = "max" if sweep.params.get("mode") == "max" else "min"
        return sweep.params["metric"], mode or way, f"what {sweep.name} looks for"
    named = {run.tags.get("config.budget.best_metric", "None") for run in runs}
    if len(named) == 1 and (name := f"train/{named.pop()}") in there:
        ways = {run.tags.get("config.budget.best_is") for run in runs}
        return (
            name,
            mode or ("max" if ways == {"highest"} else "min"),
            "the experiments' budget.best_metric",
        )
    for name in _USUAL:
        if all(name in run.metrics for run in runs):
            return name, mode or _usual_mode(name), "a usual one; --metric asks for another"
    trained = sorted(name for name in there if name.startswith("train/"))
    if not trained:
        raise ValueError("none of these runs has told a metric yet: train them first")
    return (
        trained[0],
        mode or _usual_mode(trained[0]),
        "the first that there is; --metric asks for another",
    )


def _usual_mode(metric: str) -> Mode:
    return "max" if any(word in metric for word in _HIGHER) else "min"


def _names(runs: Sequence[RunRecord], chosen: str) -> tuple[str, ...]:
    """All metrics but the machines' load: the chosen one, then val, train, and the others."""
    order = {"val": 0, "train": 1, "goodput": 2}
    there = {name for run in runs for name in run.metrics if not name.startswith("system/")}
    return tuple(
        sorted(there, key=lambda name: (name != chosen, order.get(name.split("/")[0], 3), name))
    )


def _spread(runs: Sequence[RunRecord], places: Sequence[int], metric: str) -> Spread | None:
    told = [runs[place].metrics[metric] for place in places if metric in runs[place].metrics]
    told = [value for value in told if math.isfinite(value)]
    if not told:
        return None
    return Spread(mean=fmean(told), sd=stdev(told) if len(told) > 1 else None, n=len(told))


def _best(
    runs: Sequence[RunRecord], configurations: Sequence[Configuration], metric: str, mode: Mode
) -> tuple[int | None, int | None]:
    """The best configuration by its mean, and its best run; of finished runs where there are any,
    since an early value of a run that was stopped is no result."""
    sign = 1 if mode == "min" else -1
    told = [math.isfinite(run.metrics.get(metric, math.nan)) for run in runs]
    done = [run.status == "FINISHED" and state_of(run) != "stopped" for run in runs]
    counts = [a and b for a, b in zip(told, done, strict=True)]
    counts = counts if any(counts) else told

    def worth(places: Sequence[int]) -> float:
        return sign * fmean(runs[place].metrics[metric] for place in places if counts[place])

    known = [n for n, each in enumerate(configurations) if any(counts[m] for m in each.members)]
    if not known:
        return None, None
    best = min(known, key=lambda n: worth(configurations[n].members))
    members = [place for place in configurations[best].members if counts[place]]
    return best, min(members, key=lambda place: worth([place]))


def state_of(run: RunRecord) -> str:
    """A trial's state, else the status that MLflow gives, in small letters."""
    return run.tags.get("orchestrator.trial_state") or run.status.lower()


def order_of(text: str) -> tuple[int, float, str]:
    """For sorting values that are written as text: numbers by size, before words."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text
