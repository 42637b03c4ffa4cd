"""How much of a metric's variance over a sweep each parameter explains: fANOVA, with its doubt.

Functional analysis of variance of a random forest (Hutter, Hoos and Leyton-Brown 2014), as Optuna
computes it. A forest of ten trials is a guess, so it is grown again on resamples of the trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from orchestrator.sweeping.rows import Axis, Swept, TrialRow, measured

MIN_TRIALS = 6
TREES = 32
RESAMPLES, RESAMPLES_OF_MANY, MANY = 12, 4, 64  # trials; 200 of them take 2.5 s


@dataclass(frozen=True, kw_only=True)
class Importance:
    """A parameter's share of the variance, in [0, 1]; sd: of the shares over resamples."""

    path: str
    share: float
    sd: float


def importances(rows: Sequence[TrialRow], swept: Swept) -> list[Importance]:
    """Of the parameters that every ended trial has and that vary, the most important first.

    Trials that were stopped early count by their last value. Equal rows give equal numbers.
    Raises ValueError saying why there is nothing to tell, such as too few trials.
    """
    ended = [row for row in measured(rows) if row.state in ("finished", "stopped")]
    if len(ended) < MIN_TRIALS:
        raise ValueError(f"too few trials: {len(ended)} have ended with a value, of {MIN_TRIALS}")
    if len({row.metric for row in ended}) < 2:
        raise ValueError(f"{swept.metric} is the same in all {len(ended)} trials")
    axes = [
        Axis(path, ended, kind)
        for path, kind in swept.kinds.items()
        if all(path in row.values for row in ended)
    ]
    axes = [axis for axis in axes if len(axis.levels) > 1]
    if not axes:
        raise ValueError("no parameter differs between the trials that have ended")
    trials = _trials(ended, axes)
    rng = np.random.default_rng(0)
    resamples = RESAMPLES if len(trials) <= MANY else RESAMPLES_OF_MANY
    whole = _shares(trials, axes, seed=0)
    again = np.array(
        [
            list(_shares([trials[i] for i in chosen], axes, seed=1 + n).values())
            for n, chosen in enumerate(rng.integers(0, len(trials), (resamples, len(trials))))
        ]
    )
    found = [
        Importance(path=path, share=share, sd=float(sd))
        for (path, share), sd in zip(whole.items(), again.std(0, ddof=1), strict=True)
    ]
    return sorted(found, key=lambda each: -each.share)


def _trials(rows: Sequence[TrialRow], axes: Sequence[Axis]) -> list[FrozenTrial]:
    """The rows as Optuna's trials. On axes of [0, 1] a logarithmic parameter is a linear one."""
    distributions: dict[str, BaseDistribution] = {
        axis.path: CategoricalDistribution([str(level) for level in axis.levels])
        if axis.kind == "choice"
        else FloatDistribution(0, 1)
        for axis in axes
    }
    out = []
    for row in rows:
        params = {
            axis.path: str(row.values[axis.path])
            if axis.kind == "choice"
            else min(1.0, max(0.0, axis.at(row.values[axis.path])))
            for axis in axes
        }
        out.append(create_trial(params=params, distributions=distributions, value=row.metric))
    return out


def _shares(trials: list[FrozenTrial], axes: Sequence[Axis], *, seed: int) -> dict[str, float]:
    """By path, in the order of the axes; all 0 where the resampled trials have one value."""
    paths = [axis.path for axis in axes]
    if len({trial.value for trial in trials}) < 2:
        return dict.fromkeys(paths, 0.0)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        study.add_trials(trials)
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        shares = evaluator.evaluate(study, params=paths)
    finally:
        optuna.logging.set_verbosity(before)
    return {path: float(shares[path]) for path in paths}
