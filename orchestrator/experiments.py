"""Every experiment of the papers as a value, and the named scales that fit one to a machine.

Adding an experiment is adding a value to `EXPERIMENTS`. Importing this room imports torch (through
the models' configs) but neither ray nor mlflow.
"""

from __future__ import annotations

from dataclasses import replace

from models.vgan import VganConfig
from orchestrator.config import Budget, Data, Experiment, override, suggest


def _vgan(scene: str, dataset: str, paper: str, steps: int) -> list[Experiment]:
    """The two-stream experiment of one dataset, and its one-stream twin."""
    two = Experiment(
        name=f"vgan_{scene}",
        paper=f"VGAN {paper}, two-stream",
        model=VganConfig(),
        data=Data(name=dataset),
        budget=Budget(steps=steps, checkpoint_every=1000, samples_every=1000),
    )
    one = replace(
        two,
        name=f"vgan_{scene}_one_stream",
        paper=f"VGAN {paper}, one-stream",
        model=VganConfig(two_stream=False),
    )
    return [two, one]


# Steps: the released checkpoints stopped at 65,000 (golf) and 95,000 (all of Flickr) iterations.
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in [
        *_vgan("unfiltered", "flickr", "3.1 and 3.3, unfiltered video", 95_000),
        *_vgan("golf", "flickr_golf", "3.2, golf course", 65_000),
        *_vgan("beach", "flickr_beach", "3.2, beach", 65_000),
        *_vgan("train_station", "flickr_train_station", "3.2, train station", 65_000),
        *_vgan("baby", "flickr_baby", "3.2, hospital rooms (babies)", 65_000),
    ]
}

# Overrides applied before the user's own, for every experiment and then by kind of model.
SCALES: dict[str, tuple[str, ...]] = {
    "laptop": (
        "data.name=demo",
        "data.global_batch=16",
        "data.prefetch_mib=64",
        "budget.steps=500",
        "budget.checkpoint_every=100",
        "budget.samples_every=100",
        "resources.num_workers=2",
        "resources.use_gpu=false",
        "resources.cpus_per_worker=1",
        "resources.threads=1",
    ),
    "node": ("resources.num_workers=1..8",),
    "cluster": ("resources.num_workers=8..64", "resources.sync_batch_norm=true"),
}
MODEL_SCALES: dict[type, dict[str, tuple[str, ...]]] = {
    # Five times the paper's rate: at 2e-4 the sample scenes are not to be told apart after 300
    # steps, at 1e-3 they are after 400.
    VganConfig: {"laptop": ("model.width=16", "optim.lr=1e-3")},
}


def find(name: str) -> Experiment:
    """The registered experiment `name`. Raises ValueError with the nearest match."""
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}{suggest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]


def resolve(name: str, scale: str | None, assignments: list[str]) -> Experiment:
    """The experiment `name` at `scale`, with the user's overrides on top.

    Raises ValueError naming what is wrong and what is valid.
    """
    experiment = find(name)
    bundle: tuple[str, ...] = ()
    if scale is not None:
        if scale not in SCALES:
            raise ValueError(f"no scale {scale!r}{suggest(scale, SCALES)}")
        bundle = SCALES[scale] + MODEL_SCALES[type(experiment.model)].get(scale, ())
    return override(experiment, [*bundle, *assignments])
