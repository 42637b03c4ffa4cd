"""What a run starts from: its dataset, its learner at step 0, and what losses ask of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.captions import tokens
from models.learner import Learner
from orchestrator.checkpoint import Checkpoints
from orchestrator.config import Experiment
from orchestrator.loop import Conditions, keyed_generator
from orchestrator.site import Site
from shards.bouncing import caption as caption_of
from shards.bouncing import scene_of
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


def conditions_of(learner: Learner, dataset: Dataset) -> Conditions:
    """What the learner's losses take of a batch that was read with its provenance.

    "label_b": int64, the clip's class as its place in `dataset.labels`. "caption_bl": int64, its
    caption's words as `tokens` has them. "scene_bk": float32, 1 for each thing that its caption
    says is seen (`shards.bouncing`), at 2 digit + motion. A clip that could not be read has the
    first class or word, and counts for nothing. Raises ValueError when the dataset cannot give
    them.
    """
    match learner.conditions:
        case ():
            return lambda _batch: {}
        case ("label_b",):
            return _labels(learner, dataset)
        case ("caption_bl",):
            return _captions(learner, dataset)
        case ("scene_bk",):
            return _scenes(dataset)
    raise AssertionError(f"conditions {learner.conditions}: not known")


def _labels(learner: Learner, dataset: Dataset) -> Conditions:
    place = {label: n for n, label in enumerate(dataset.labels)}
    if len(place) != learner.classes:
        found = f"{len(place)} classes ({', '.join(place) or 'its clips have no labels'})"
        raise ValueError(
            f"model.classes={learner.classes}: the dataset at {dataset.store.location} has {found}"
        )

    def label_b(batch: Any) -> dict[str, np.ndarray[Any, Any]]:
        clips = zip(batch.json, batch.valid_b, strict=True)
        return {
            "label_b": np.array(
                [place[clip["labels"][0]] if valid else 0 for clip, valid in clips], np.int64
            )
        }

    return label_b


def _captions(learner: Learner, dataset: Dataset) -> Conditions:
    words, where = dataset.words, dataset.store.location
    if not words:
        raise ValueError(f"the dataset at {where} has no captions, and this model is given them")
    if len(words) >= learner.vocabulary:
        raise ValueError(
            f"model.vocabulary={learner.vocabulary}: the captions at {where} have {len(words)} "
            f"words, and 0 is none of them: set model.vocabulary={len(words) + 1}"
        )

    def caption_bl(batch: Any) -> dict[str, np.ndarray[Any, Any]]:
        clips = zip(batch.json, batch.valid_b, strict=True)
        captions = [clip["caption"] if valid else words[0] for clip, valid in clips]
        return {"caption_bl": tokens(captions, words, learner.words).numpy()}

    return caption_bl


def scenes(captions: Sequence[str]) -> np.ndarray[Any, Any]:
    """float32 (B, 20): what captions of bouncing digits say is seen; see `conditions_of`."""
    out = np.zeros((len(captions), 20), np.float32)
    for row, caption in zip(out, captions, strict=True):
        for digit, motion in scene_of(caption):
            row[2 * digit + motion] = 1
    return out


def _scenes(dataset: Dataset) -> Conditions:
    if not dataset.words:
        raise ValueError(f"the dataset at {dataset.store.location} has no captions to learn from")

    def scene_bk(batch: Any) -> dict[str, np.ndarray[Any, Any]]:
        clips = zip(batch.json, batch.valid_b, strict=True)
        spoiled = caption_of(((0, 0),))
        return {"scene_bk": scenes([clip["caption"] if ok else spoiled for clip, ok in clips])}

    return scene_bk
