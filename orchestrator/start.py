"""What a run starts from: its dataset, and its learner at step 0."""

from __future__ import annotations

import torch

from models.learner import Learner
from orchestrator.checkpoint import Checkpoints
from orchestrator.config import Experiment
from orchestrator.loop import keyed_generator
from orchestrator.site import Site
from shards.dataset import Dataset, open_dataset
from shards.storage import open_store


def run_dataset(experiment: Experiment, site: Site, version: str) -> Dataset:
    """The experiment's dataset. Raises ValueError when it is not of that version."""
    data = experiment.data
    dataset = open_dataset(site.dataset(data.name), data.fraction)
    if dataset.version != version:
        raise ValueError(
            f"dataset {data.name!r} changed since the run was started: version "
            f"{dataset.version[:12]}, the run's is {version[:12]}"
        )
    return dataset


def new_learner(experiment: Experiment, site: Site) -> Learner:
    """The learner at step 0: a function of the run's seed, and of the run it begins from, if any.

    Raises ValueError where `init_from` names no run with a checkpoint, or one of another model, and
    where it names none for a learner that needs one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(keyed_generator(experiment.seed, "weights", 0).get_state())
        learner: Learner = experiment.model.build()
    if experiment.init_from is None:
        if learner.needs_weights:
            raise ValueError(
                f"init_from=None: {experiment.name} begins from the weights of a finished run; "
                "name it, as in init_from=vgan_unfiltered-0a1b2c3d"
            )
        return learner
    where = site.run(experiment.init_from)
    begun = Checkpoints(open_store(where), keep=2).newest()
    if begun is None:
        raise ValueError(
            f"init_from={experiment.init_from!r}: there is no checkpoint at {where}; name a run of "
            "RUNS_ROOT that has one, or none"
        )
    try:
        learner.adopt(begun.state["learner"])
    except ValueError as error:
        raise ValueError(f"init_from={experiment.init_from!r}: {error}") from None
    return learner
