"""Lists the sweeps, prints the plan of one, or runs it: `python -m orchestrator.sweep`.

    python -m orchestrator.sweep                                    lists
    python -m orchestrator.sweep vgan_lambda --plan                 what would run
    python -m orchestrator.sweep vgan_lambda --scale laptop         runs; the same again resumes
    python -m orchestrator.sweep vgan_lambda sweep.trials=20 space.model.mask_lambda=log:1e-3..1

Overrides: sweep.FIELD of the sweep, space.PATH the values of a path (`none` takes it out), all
others of the experiment. --json prints an event a line, the result last.

Exit status: 0 done, 1 no trial finished or the sweep was stopped, 2 the call was wrong.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from types import FrameType
from typing import Any

from orchestrator import command
from orchestrator.config import Experiment
from orchestrator.overrides import override
from orchestrator.run import make_plan, show
from orchestrator.site import Site
from orchestrator.sweeping.journal import Journal
from orchestrator.sweeping.plan import Planned, facts
from orchestrator.sweeping.search import Search
from orchestrator.sweeping.space import Space, assignments, parse_space
from orchestrator.sweeps import SWEEPS, resolve_sweep, sweep_name
from shards.storage import open_store


def parser() -> Any:
    """The command line."""
    out = command.parser("sweep", __doc__, name_help="a sweep; without one, all are listed")
    out.add_argument("--plan", action="store_true", help="print what would run, run nothing")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = parser().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        if given.name is None:
            listing(as_json=given.json)
            return 0
        planned = plan(given.name, given.scale, given.overrides, Site.from_environment())
        if given.plan:
            show(described(planned), as_json=given.json)
            return 0
        from orchestrator.sweeping.start import Sweeping

        sweeping = Sweeping(planned, as_json=given.json)
    except (ValueError, OSError) as error:
        return command.wrong_call(error)

    def ask(_signal: int, _frame: FrameType | None) -> None:
        sweeping.stop()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return sweeping.run()


def listing(*, as_json: bool) -> None:
    """Prints every sweep."""
    rows = [
        {
            "name": sweep.name,
            "base": sweep.base,
            "space": dict(sweep.space),
            "objectives": sweep.objectives,
            "searcher": sweep.searcher,
            "scheduler": sweep.scheduler,
            "trials": sweep.trials,
            "about": sweep.about,
        }
        for sweep in SWEEPS.values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    for sweep in SWEEPS.values():
        print(f"{sweep.name}: {sweep.about}")
        print(f"    {sweep.base}, {sweep.objectives}, {sweep.searcher}, {sweep.scheduler}")
        for path, text in sweep.space.items():
            print(f"    {path} = {text}")


def plan(name: str, scale: str | None, given: list[str], site: Site) -> Planned:
    """Everything about a sweep that is known before it starts.

    Raises ValueError or OSError, with a message for the user, when it cannot be.
    """
    sweep, experiment = resolve_sweep(name, scale, given)
    space = parse_space(sweep.space, experiment)
    search = Search(sweep, space)
    steps = experiment.budget.steps
    report_every = max(1, steps // sweep.reports)
    log_every = experiment.budget.log_every
    changes = [f"budget.samples_every={report_every}"]
    if report_every % log_every:
        changes.append(f"budget.log_every={report_every}")
    if sweep.scheduler == "pbt":  # others go on from what was reported
        changes += [f"budget.checkpoint_every={report_every}", "budget.keep_checkpoints=10"]
    experiment = override(experiment, changes)
    first = search.next({}, lambda _: False)
    assert first is not None, "a space has a point"
    _, version = make_plan(override(experiment, assignments(first)), site, fresh=False)
    if sweep.scheduler == "pbt":
        _require_equal_shapes(space, experiment)
    return Planned(
        name=sweep_name(sweep, experiment, version),
        sweep=sweep,
        space=space,
        experiment=experiment,
        version=version,
        report_every=report_every,
        site=site,
    )


def described(planned: Planned) -> dict[str, Any]:
    """The plan as plain data."""
    sweep, experiment = planned.sweep, planned.experiment
    size = Search(sweep, planned.space).size
    store = open_store(planned.site.run(planned.name))
    begun = any(True for _ in store.list("trials/"))
    trials = Journal(store, facts(planned)).trials if begun else {}
    states = [trial.state for trial in trials.values()]
    resources = experiment.resources
    return {
        "sweep": planned.name,
        "about": sweep.about,
        "experiment": experiment.name,
        "dataset": {"name": experiment.data.name, "version": planned.version},
        "space": dict(sweep.space),
        "points": "not counted" if size is None else size,
        "trials": sweep.trials if size is None else min(size, sweep.trials),
        "objectives": sweep.objectives,
        "searcher": sweep.searcher,
        "scheduler": sweep.scheduler,
        "steps": experiment.budget.steps,
        "report_every": planned.report_every,
        "rungs": ", ".join(map(str, planned.rung_steps)) or "none",
        "workers": str(resources.num_workers),
        "cpus_per_worker": resources.cpus_per_worker,
        "gpus_per_worker": int(resources.use_gpu),
        "limits": {name: getattr(sweep, name) for name in ("hours", "gpu_hours", "usd")},
        "writes_to": planned.site.run(planned.name),
        "mlflow": planned.site.mlflow_uri,
        "so_far": {state: states.count(state) for state in sorted(set(states))} or "nothing",
    }


def _require_equal_shapes(space: Space, experiment: Experiment) -> None:
    """Raises ValueError where a path of the space changes the weights' shapes."""
    for domain in space:
        shapes = set()
        for value in domain.ends:
            model = override(experiment, [f"{domain.path}={value}"]).model
            weights = model.build().state_dict()
            shapes.add(tuple((name, tuple(tensor.shape)) for name, tensor in weights.items()))
        if len(shapes) > 1:
            raise ValueError(
                f"space.{domain.path}: pbt gives one trial the weights of another, and this path "
                "changes their shapes; take it out of the space, or another sweep.scheduler"
            )


if __name__ == "__main__":
    sys.exit(main())
