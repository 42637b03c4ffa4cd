"""Which point of a space comes next: all of a grid, draws, or Optuna's TPE.

The k-th suggestion is a function of the sweep's seed, k, and what is known of the trials before, so
that a sweep that was interrupted goes on as it would have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.sweeping.journal import Trial
from orchestrator.sweeping.space import Domain, Space, grid, placed
from orchestrator.sweeps import Sweep

TRIES = 100  # draws in search of a point that was not tried yet


class Search:
    """Suggests points; told of trials in the order of their numbers."""

    def __init__(self, sweep: Sweep, space: Space) -> None:
        self._sweep = sweep
        self._space = space
        self._grid = list(grid(space)) if sweep.searcher == "grid" else None

    @property
    def size(self) -> int | None:
        """How many points there are in all; None where they are not counted."""
        return None if self._grid is None else len(self._grid)

    def next(
        self, trials: Mapping[int, Trial], is_known: Callable[[dict[str, str]], bool]
    ) -> dict[str, str] | None:
        """The values of another trial; None when there is none left that is new.

        is_known: whether the point's run is one of the sweep's already.
        """
        if self._grid is not None:
            return next((point for point in self._grid if not is_known(point)), None)
        study = self._study(trials)
        for attempt in range(TRIES):
            study.sampler = self._sampler(f"{self._sweep.seed}/{len(trials)}/{attempt}")
            asked = study.ask()
            point: dict[str, str] = {}
            for domain in self._space:
                if domain.has_place(point):
                    point[domain.path] = _draw(asked, domain)
            if not is_known(point):
                return point
        return None

    def _study(self, trials: Mapping[int, Trial]) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        to = {"min": optuna.study.StudyDirection.MINIMIZE}
        to["max"] = optuna.study.StudyDirection.MAXIMIZE
        directions = [to[mode] for _, mode in self._sweep.goals]
        study = optuna.create_study(directions=directions)
        for trial in trials.values():
            study.add_trial(self._past(trial))
        return study

    def _past(self, trial: Trial) -> Any:
        """A trial as Optuna knows it. One that was stopped counts by its last report: it was as bad
        there as others, and to forget it would be to search there again."""
        from optuna.trial import TrialState, create_trial

        have = [d for d in self._space if d.path in placed(self._space, trial.values)]
        told = [trial.last(metric) for metric, _ in self._sweep.goals]
        values = [value for value in told if value is not None]
        over = trial.state in ("finished", "stopped") and len(values) == len(told)
        state = TrialState.COMPLETE if over else TrialState.FAIL
        if trial.state == "running":
            state = TrialState.RUNNING
        return create_trial(
            params={d.path: _number(d, trial.values[d.path]) for d in have},
            distributions={d.path: _distribution(d) for d in have},
            values=values if over else None,
            state=state,
        )

    def _sampler(self, key: str) -> Any:
        from optuna.samplers import RandomSampler, TPESampler

        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
        if self._sweep.searcher == "random":
            return RandomSampler(seed=seed)
        # Running trials count as bad ones nearby, so that a batch does not gather at one place.
        return TPESampler(seed=seed, constant_liar=True, n_startup_trials=8)


def _draw(asked: Any, domain: Domain) -> str:
    if domain.choices:
        return str(asked.suggest_categorical(domain.path, domain.choices))
    if domain.whole:
        low, high = int(domain.low), int(domain.high)
        return domain.text(asked.suggest_int(domain.path, low, high, log=domain.log))
    return domain.text(asked.suggest_float(domain.path, domain.low, domain.high, log=domain.log))


def _number(domain: Domain, text: str) -> Any:
    return text if domain.choices else int(text) if domain.whole else float(text)


def _distribution(domain: Domain) -> Any:
    from optuna import distributions as of

    if domain.choices:
        return of.CategoricalDistribution(domain.choices)
    if domain.whole:
        return of.IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return of.FloatDistribution(domain.low, domain.high, log=domain.log)
