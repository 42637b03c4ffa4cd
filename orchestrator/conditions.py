"""What a model is told of clips besides their pixels: labels, captions, attributes, as numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.captions import tokens
from models.learner import Learner
from models.skip_thoughts import SkipThoughts
from orchestrator.loop import Conditions
from shards.bouncing import caption as caption_of
from shards.bouncing import scene_of
from shards.dataset import Dataset

Note = dict[str, Any]


def conditions_of(learner: Learner, dataset: Dataset) -> Conditions:
    """What the learner's losses take of a batch that was read with its provenance.

    "label_b": int64, the clip's class as its place in `dataset.labels`. "caption_bl": int64, its
    caption's words as `tokens` has them. "sentence_bd": float32, its caption's skip-thoughts.
    "scene_bk": float32, 1 for each thing that its caption
    says is seen (`shards.bouncing`), at 2 digit + motion. "attributes_ba": int64, the values of
    its attributes as their places (`attribute_values`). "joint_b": int64, of all of them at once,
    the last attribute counting ones. A clip that could not be read has the
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
        case ("sentence_bd",):
            return _sentences(learner, dataset)
        case ("scene_bk",):
            return _scenes(dataset)
        case ("attributes_ba",):
            return _attributes(learner, dataset)
        case ("joint_b",):
            return _joint(learner, dataset)
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


def sentence_encoder(learner: Learner) -> Callable[[Sequence[str]], Tensor]:
    """Captions to `sentence_bd`, by the weights in the folder SKIP_THOUGHTS; each caption once.

    Raises ValueError where there are none, or of another size.
    """
    folder = os.environ.get("SKIP_THOUGHTS")
    if not folder:
        raise ValueError(
            "SKIP_THOUGHTS: name the folder of the published skip-thoughts in it, or take "
            "model.captions=sentence, whose encoder is trained with the model"
        )
    encoder = SkipThoughts(folder)
    if encoder.size != learner.language:
        raise ValueError(f"model.language={learner.language}: {folder} has {encoder.size} numbers")
    known: dict[str, Tensor] = {}

    def encode(captions: Sequence[str]) -> Tensor:
        for caption in dict.fromkeys(captions):
            if caption not in known:
                known[caption] = encoder.encode([caption])[0]
        return torch.stack([known[caption] for caption in captions])

    return encode


def _sentences(learner: Learner, dataset: Dataset) -> Conditions:
    if not dataset.words:
        raise ValueError(f"the dataset at {dataset.store.location} has no captions")
    encode = sentence_encoder(learner)

    def sentence_bd(batch: Any) -> dict[str, np.ndarray[Any, Any]]:
        clips = zip(batch.json, batch.valid_b, strict=True)
        captions = [clip["caption"] if valid else dataset.words[0] for clip, valid in clips]
        return {"sentence_bd": encode(captions).numpy()}

    return sentence_bd


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


def attribute_values(dataset: Dataset) -> dict[str, list[str]]:
    """The values of every attribute of the clips, both sorted by name; of clips with a label only,
    that is one attribute, `label`. Raises ValueError where clips have neither."""
    values = dataset.attributes or ({"label": dataset.labels} if dataset.labels else {})
    if not values:
        raise ValueError(f"the dataset at {dataset.store.location} has no attributes and no labels")
    return values


def attribute_places(notes: Sequence[Note | None], dataset: Dataset) -> np.ndarray[Any, Any]:
    """int64 (B, A): each clip's values as their places, from what its dataset notes of it."""
    values = attribute_values(dataset)
    place = {name: {value: n for n, value in enumerate(each)} for name, each in values.items()}
    out = np.zeros((len(notes), len(values)), np.int64)
    for row, note in zip(out, notes, strict=True):
        if note is None:
            continue
        told = note.get("attributes") or {"label": note["labels"][0]}
        row[:] = [place[name][told[name]] for name in values]
    return out


def joint_places(
    notes: Sequence[Note | None], dataset: Dataset, without: str = ""
) -> np.ndarray[Any, Any]:
    """int64 (B,): each clip's combination of values, of all attributes but the one `without`."""
    sizes = {name: len(values) for name, values in attribute_values(dataset).items()}
    kept = [n for n, name in enumerate(sizes) if name != without]
    places_ba = attribute_places(notes, dataset)[:, kept]
    shape = [list(sizes.values())[n] for n in kept]
    joint: np.ndarray[Any, Any] = np.ravel_multi_index(tuple(places_ba.T), shape).astype(np.int64)
    return joint


def class_names(learner: Learner, dataset: Dataset) -> list[str]:
    """The names of the classes that a classifier is to find, by their places."""
    if "joint_b" not in learner.conditions:
        return dataset.labels
    kept = [each for name, each in attribute_values(dataset).items() if name != learner.without]
    return [" ".join(values) for values in product(*kept)]


def class_places(
    learner: Learner, notes: Sequence[Note | None], dataset: Dataset
) -> np.ndarray[Any, Any]:
    """int64 (B,): the classes that a classifier is to find. Raises ValueError for a dataset of
    another number of classes."""
    conditions_of(learner, dataset)
    if "joint_b" in learner.conditions:
        return joint_places(notes, dataset, learner.without)
    place = {label: n for n, label in enumerate(dataset.labels)}
    return np.array([0 if note is None else place[note["labels"][0]] for note in notes], np.int64)


def _attributes(learner: Learner, dataset: Dataset) -> Conditions:
    sizes = {name: len(values) for name, values in attribute_values(dataset).items()}
    if learner.values and tuple(sizes.values()) != tuple(learner.values):
        told = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise ValueError(
            f"model.attributes={learner.values}: the clips at {dataset.store.location} have {told}"
        )

    def attributes_ba(batch: Any) -> dict[str, np.ndarray[Any, Any]]:
        return {"attributes_ba": attribute_places(_whole(batch), dataset)}

    return attributes_ba


def _joint(learner: Learner, dataset: Dataset) -> Conditions:
    sizes = {
        name: len(values)
        for name, values in attribute_values(dataset).items()
        if name != learner.without
    }
    if math.prod(sizes.values()) != learner.classes:
        told = " x ".join(f"{size} of {name}" for name, size in sizes.items())
        raise ValueError(
            f"model.classes={learner.classes}: the clips at {dataset.store.location} have {told}"
        )

    def joint_b(batch: Any) -> dict[str, np.ndarray[Any, Any]]:
        return {"joint_b": joint_places(_whole(batch), dataset, learner.without)}

    return joint_b


def _whole(batch: Any) -> list[Note | None]:
    """The batch's notes; None for clips that could not be read."""
    return [note if valid else None for note, valid in zip(batch.json, batch.valid_b, strict=True)]
