"""Lists the experiments, prints the plan of one, or runs it: `python -m orchestrator.run`.

    python -m orchestrator.run                              lists
    python -m orchestrator.run vgan_golf --plan             what would run
    python -m orchestrator.run vgan_golf --plan --on 8xh100 and for how much, there
    python -m orchestrator.run vgan_golf optim.lr=1e-4      runs; the same again resumes

Exit status: 0 done, 1 the work failed, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import command
from orchestrator.archive import generation, progress
from orchestrator.config import Experiment, flat, plain, run_name
from orchestrator.experiments import EXPERIMENTS
from orchestrator.hardware import find_machine
from orchestrator.site import Site

if TYPE_CHECKING:
    from shards.read import Dataset


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a run that is known before it starts; plain data."""

    run: str
    experiment: dict[str, Any]
    parameters: dict[str, int]
    dataset: dict[str, Any]
    workers: str
    clips_per_worker: str
    epochs: float
    checkpoints: int
    writes_to: str
    mlflow: str
    state: str
    resumes_at_step: int


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = command.parser("run", __doc__, name_help="an experiment; without one, all are listed")
    out.add_argument("--plan", action="store_true", help="print what would run, run nothing")
    out.add_argument("--on", metavar="MACHINE", help="with --plan: time and cost there")
    out.add_argument("--fresh", action="store_true", help="start another run of the same name")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = parser().parse_intermixed_args(argv)
    try:
        experiment = command.experiment_of(arguments)
        if experiment is None:
            listing(as_json=arguments.json)
            return 0
        if arguments.on and not arguments.plan:
            raise ValueError(f"--on {arguments.on}: goes with --plan; a run takes RAY_ADDRESS's")
        machine = find_machine(arguments.on) if arguments.on else None
        site = Site.from_environment()
        plan, version = make_plan(experiment, site, fresh=arguments.fresh)
    except (ValueError, OSError) as error:
        return command.wrong_call(error)
    if arguments.plan:
        from orchestrator.estimate import estimate
        from shards.read import open_dataset

        data = experiment.data
        manifest = open_dataset(site.dataset(data.name), data.fraction).manifest
        figures = estimate(experiment, manifest, site, machine)
        show(dataclasses.asdict(plan) | figures, as_json=arguments.json)
        return 0
    from orchestrator.launch import launch

    return launch(experiment, site, plan.run, version, as_json=arguments.json)


def listing(*, as_json: bool) -> None:
    """Prints every experiment."""
    rows: list[dict[str, Any]] = [
        {
            "name": experiment.name,
            "paper": experiment.paper,
            "model": type(experiment.model).__name__.removesuffix("Config"),
            "data": experiment.data.name,
            "steps": experiment.budget.steps,
            "global_batch": experiment.data.global_batch,
            "workers": str(experiment.resources.num_workers),
            "gpu": experiment.resources.use_gpu,
        }
        for experiment in EXPERIMENTS.values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    columns = list(rows[0])
    width = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        print("  ".join(str(row[c]).ljust(width[c]) for c in columns).rstrip())


def make_plan(experiment: Experiment, site: Site, *, fresh: bool) -> tuple[Plan, str]:
    """(the plan of a run, the dataset's version). Reads the manifest and the run's folder.

    A dataset that can be made is made. Raises ValueError or OSError, with a message for the user,
    when the run cannot be.
    """
    from shards.storage import open_store

    dataset, data = _fitting_dataset(experiment, site), experiment.data
    name = generation(site, run_name(experiment, dataset.version), fresh=fresh)
    state, step = progress(open_store(site.run(name)))
    learner = experiment.model.build()
    workers = experiment.resources.num_workers
    most, least = data.global_batch // workers.minimum, data.global_batch // workers.maximum
    plan = Plan(
        run=name,
        experiment=flat(experiment),
        parameters={
            phase: sum(p.numel() for p in learner.get_submodule(phase).parameters())
            for phase in learner.phases
        },
        dataset={
            "name": data.name,
            "version": dataset.version,
            "clips": dataset.manifest.samples,
            "shards": len(dataset.manifest.shards),
            "gib": round(sum(s.bytes for s in dataset.manifest.shards) / 2**30, 3),
        },
        workers=str(workers),
        clips_per_worker=str(most) if most == least else f"{least}..{most}",
        epochs=round(experiment.budget.steps * data.global_batch / dataset.manifest.samples, 2),
        checkpoints=-(-experiment.budget.steps // experiment.budget.checkpoint_every),
        writes_to=site.run(name),
        mlflow=site.mlflow_uri,
        state=state,
        resumes_at_step=step,
    )
    return plan, dataset.version


def _fitting_dataset(experiment: Experiment, site: Site) -> Dataset:
    """The experiment's dataset, which has been tried on its batch, its clips and conditions."""
    from orchestrator.conditions import conditions_of
    from orchestrator.provided import provide
    from orchestrator.start import new_learner
    from shards.read import Reader, Slice, open_dataset

    data = experiment.data
    provide(data.name, site)
    try:
        dataset = open_dataset(site.dataset(data.name), data.fraction)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}. Build one with: python -m shards.ingest VIDEOS {site.dataset(data.name)}, "
            f"or the sample data with: python -m shards.demo {site.dataset('demo')} "
            "and data.name=demo; SHARDS_ROOT says where datasets are"
        ) from None
    Reader(
        dataset,
        seed=experiment.seed,
        slice=Slice(rank=0, world_size=1, global_batch=data.global_batch),
        block_shards=data.block_shards,
    )
    if dataset.manifest.clip.shape != experiment.model.clip_shape:
        raise ValueError(
            f"data.name={data.name!r}: its clips are {dataset.manifest.clip.shape} (T, H, W, C), "
            f"{experiment.name} learns from {experiment.model.clip_shape}"
        )
    conditions_of(new_learner(experiment, site), dataset)
    return dataset


def show(value: dict[str, Any], *, as_json: bool) -> None:
    """Prints a plan for people, or as one line of JSON."""
    if as_json:
        print(json.dumps(plain(value)))
        return
    _print_tree(value, indent=0)


def _print_tree(value: dict[str, Any], *, indent: int) -> None:
    for name, item in value.items():
        if isinstance(item, dict):
            print(f"{'':{indent}}{name}:")
            _print_tree(item, indent=indent + 2)
        else:
            shown = f"{item:.4g}" if isinstance(item, float) else "-" if item is None else item
            print(f"{'':{indent}}{name + ':':<{30 - indent}} {shown}")


if __name__ == "__main__":
    sys.exit(main())
