"""Ray Tune: it starts trials, asks for points, and lets a scheduler stop. Besides this room only a
trial's actor (`driver`) knows it.

Tune is made anew at every start of a sweep and keeps nothing: what it has to know of trials that
are over is told to its scheduler from the journal, and trials that were running are handed to it
again under the numbers that they had.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import _convert_to_experiment_list
from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search.search_algorithm import SearchAlgorithm

from orchestrator.sweeping.conduct import Conduct, Report
from orchestrator.sweeping.driver import Driver, Setting
from orchestrator.sweeping.journal import Trial
from orchestrator.sweeps import Sweep

DRIVER_STARTS = 4  # of a trial's actor, whose node may be lost; workers have their own count


class _Unsaved:
    """Tune pickles what it is given for a restore that we never make; of this it gets nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, _memo: Any) -> Any:
        return self


class Order(_Unsaved, SearchAlgorithm):  # type: ignore[misc]
    """Hands Tune the trials that `conduct` has next, as many at a time as `slots` says, and tells
    it of their reports and ends."""

    def __init__(self, conduct: Conduct, slots: Callable[[], int]) -> None:
        self._conduct = conduct
        self._slots = slots
        self._heard: dict[str, str] = {}
        self._given: dict[str, Any] = {}  # Tune's trials, by id
        self._parser = _make_parser()

    def add_configurations(self, experiments: Any) -> None:
        """Takes Tune's own definition of the experiment."""
        self._spec = _convert_to_experiment_list(experiments)[0].spec

    def next_trial(self) -> Any:
        """Another trial; None while there is no room for one, or none left."""
        if len(self._conduct.live) >= self._slots():
            return None
        trial = self._conduct.next_trial()
        if trial is None:
            if not self._conduct.live:
                self.set_finished()
            return None
        spec = self._spec | {"config": {"values": trial.values, "told": trial.step}}
        self._given[trial.id] = _create_trial_from_spec(
            spec, self._parser, trial_id=trial.id, experiment_tag=trial.id
        )
        return self._given[trial.id]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        text = result.get("report")
        if text is not None and self._heard.get(trial_id) != text:
            self._heard[trial_id] = text
            report: Report = json.loads(text)
            self._conduct.on_result(int(trial_id), report)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result is not None:  # Tune tells the last one only here
            self.on_trial_result(trial_id, result)
        why = self._error(self._given[trial_id]) if error else (result or {}).get("why")
        self._conduct.on_over(int(trial_id), why)

    def _error(self, trial: Any) -> str:
        lines = Path(trial.error_file).read_text().split("\n") if trial.error_file else []
        last = next((line for line in reversed(lines) if line.strip()), "for a reason untold")
        return f"its driver failed {trial.num_failures} times: {last.strip()}"


@dataclass(frozen=True)
class _Past:
    """A trial that is over, as a scheduler looks at one."""

    trial_id: str


def scheduler(
    sweep: Sweep,
    *,
    steps: int,
    report_every: int,
    past: Mapping[int, Trial],
    explore: Callable[[dict[str, Any]], dict[str, Any]],
) -> TrialScheduler:
    """Tune's scheduler of the sweep, told what `past` trials reported.

    steps: of a whole trial. explore: a config changed, for pbt.
    """
    metric, mode = sweep.goals[0]
    common = {"time_attr": "step", "metric": metric, "mode": mode}
    grace = sweep.grace * report_every
    if sweep.scheduler == "none":
        return FIFOScheduler()
    if sweep.scheduler == "pbt":
        return PopulationBasedTraining(
            **common,
            perturbation_interval=grace,
            custom_explore_fn=explore,
            require_attrs=False,
        )
    out = (
        MedianStoppingRule(**common, grace_period=grace)
        if sweep.scheduler == "median"
        else AsyncHyperBandScheduler(
            **common, max_t=steps, grace_period=grace, reduction_factor=sweep.eta
        )
    )
    for trial in past.values():
        if trial.state == "running" and sweep.scheduler == "median":
            continue  # it knows trials by themselves, and this one comes again
        stand_in = _Past(trial.id)
        out.on_trial_add(None, stand_in)
        for step, metrics in trial.curve:
            if metric in metrics:
                out.on_trial_result(None, stand_in, {"step": step, **metrics})
    return out


class Limits(_Unsaved, tune.Stopper):  # type: ignore[misc]
    """Ends the sweep when `spent` says why it should; None while it should go on."""

    def __init__(self, spent: Callable[[], str | None]) -> None:
        self._spent = spent

    def __call__(self, _trial_id: str, _result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._spent() is not None


def run_trials(
    setting: Setting,
    order: Order,
    judge: TrialScheduler,
    limits: Limits,
    *,
    storage: Path,
    on_driver_node: bool,
) -> None:
    """Runs Tune until no trial is left or the limits say so.

    storage: a folder for Tune's own files, of this start only. on_driver_node: keeps the trials'
    actors on this node, where they can read each other's files.
    """
    for name, value in (
        ("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1"),  # a failed trial's last result has none
        ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),
        ("TUNE_DISABLE_SIGINT_HANDLER", "1"),  # the command has its own, which lets trials save
        ("TUNE_MAX_PENDING_TRIALS_PG", "64"),
        ("RAY_AIR_NEW_OUTPUT", "0"),
        ("TUNE_GLOBAL_CHECKPOINT_S", "3600"),  # nothing is restored from it
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # the journal says it better
    bundle: dict[str, float] = {"memory": 2**20}  # no CPU: those are for workers
    if on_driver_node:
        import ray

        bundle[f"node:{ray.util.get_node_ip_address()}"] = 0.001
    trainable = tune.with_resources(
        tune.with_parameters(Driver, setting=setting), tune.PlacementGroupFactory([bundle])
    )
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=order, scheduler=judge, num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            stop=limits,
            failure_config=tune.FailureConfig(max_failures=DRIVER_STARTS - 1),
            verbose=0,
            log_to_file=False,
        ),
    ).fit()
