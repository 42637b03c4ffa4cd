"""A sweep that can be started: what every part of running one is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from orchestrator.config import Experiment, run_name
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.sweeping.space import Space, assignments
from orchestrator.sweeps import Sweep, definition
from shards.dataset import open_dataset


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A sweep that can be started. name: with its hash. experiment: that trials override.

    version: of the experiment's dataset. report_every: steps between a trial's reports.
    """

    name: str
    sweep: Sweep
    space: Space
    experiment: Experiment
    version: str
    report_every: int
    site: Site

    def trial(self, values: Mapping[str, str]) -> Experiment:
        """The experiment of a trial."""
        return override(self.experiment, assignments(values))

    def run(self, number: int, experiment: Experiment) -> str:
        """The name of a trial's run: the one that the experiment has anywhere. Trials of pbt change
        as they go, so theirs is their number's."""
        if self.sweep.scheduler == "pbt":
            return f"{self.name}-{number:05d}"
        return run_name(experiment, dataset_version(self.site, experiment))

    @property
    def rung_steps(self) -> tuple[int, ...]:
        """Where ASHA compares trials."""
        steps, at = [], self.sweep.grace * self.report_every
        while self.sweep.scheduler == "asha" and at <= self.experiment.budget.steps:
            steps.append(at)
            at *= self.sweep.eta
        return tuple(steps)


def facts(planned: Planned) -> dict[str, Any]:
    """What the journal holds the sweep to."""
    return definition(planned.sweep, planned.experiment, planned.version)


def dataset_version(site: Site, experiment: Experiment) -> str:
    """Of the experiment's dataset, as this process found it first."""
    data = experiment.data
    return _version(site.dataset(data.name), data.fraction)


@cache
def _version(location: str, fraction: float) -> str:
    return open_dataset(location, fraction).version
