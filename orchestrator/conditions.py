"""What a model is told of clips besides their pixels: labels, captions, attributes, as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from itertools import product
from typing import Any

import numpy as np

from models.captions import tokens
from models.learner import Learner
from models.skip_thoughts import from_environment
from orchestrator.loop import Conditions
from shards.bouncing import MOTIONS, scene_of
from shards.dataset import Dataset

Note = dict[str, Any]
Array = np.ndarray[Any, Any]
_LISTED = 20  # names in a message
Tell = Callable[[Sequence[Note | None]], Array]  # of clips' notes; None: it could not be read


def conditions_of(learner: Learner, dataset: Dataset) -> Conditions:
    """What the learner's losses take of a batch that was read with its provenance; see `teller`.

    A clip that could not be read counts for nothing, whatever is told of it.
    """
    if not learner.conditions:
        return lambda _batch: {}
    (name,) = learner.conditions
    tell = teller(learner, dataset)

    def of(batch: Any) -> dict[str, Array]:
        clips = zip(batch.json, batch.valid_b, strict=True)
        return {name: tell([note if valid else None for note, valid in clips])}

    return of


def teller(learner: Learner, dataset: Dataset) -> Tell:
    """From clips' notes to the learner's condition, by its name:

    "label_b": int64, the clip's class as its place in `dataset.labels`. "joint_b": int64, its
    attributes' values at once, the last attribute counting ones. "attributes_ba": int64, each
    value's place (`attribute_values`). "caption_bl": int64, its caption's words as `tokens` has
    them. "sentence_bd": float32, its caption's skip-thoughts. "scene_bk": float32, see `scenes`.
    Raises ValueError when the dataset cannot give it.
    """
    kinds = {
        "label_b": _label,
        "joint_b": _joint,
        "attributes_ba": _attributes,
        "caption_bl": _captions,
        "sentence_bd": _sentences,
        "scene_bk": _scenes,
    }
    (name,) = learner.conditions
    return kinds[name](learner, dataset)


def class_names(learner: Learner, dataset: Dataset) -> list[str]:
    """The names of the classes that a classifier tells apart, by their places."""
    if "joint_b" not in learner.conditions:
        return dataset.labels
    return [" ".join(values) for values in product(*_kept(learner, dataset).values())]


def attribute_values(dataset: Dataset) -> dict[str, list[str]]:
    """The values of every attribute of the clips, both sorted by name; of clips with a label only,
    that is one attribute, `label`. Raises ValueError where clips have neither."""
    values = dataset.attributes or ({"label": dataset.labels} if dataset.labels else {})
    if not values:
        raise ValueError(f"the dataset at {dataset.store.location} has no attributes and no labels")
    return values


def value_names(learner: Learner, dataset: Dataset) -> list[str]:
    """What `frame_values` takes, `name=value`, in the order that the learner counts them; none for
    a learner that is told no attributes."""
    if "attributes_ba" not in learner.conditions:
        return []
    return [f"{name}={v}" for name, each in attribute_values(dataset).items() for v in each]


def frame_values(asked: Sequence[str], names: Sequence[str], frames: int) -> Array:
    """int64 (T, A): attributes as a user gives them, `name=value`, by frame; -1 where not given.

    `name=value,value`: so many parts of the clip, as long as each other, have one value each.
    names: every `name=value` there is, in order. Raises ValueError with the nearest.
    """
    values: dict[str, list[str]] = {}
    for each in names:
        name, _, value = each.partition("=")
        values.setdefault(name, []).append(value)
    out = np.full((frames, len(values)), -1, np.int64)
    for each in asked:
        name, _, told = each.partition("=")
        if name not in values:
            raise ValueError(f"{each}: there is no attribute {name!r}{_nearest(name, values)}")
        column = out[:, list(values).index(name)]
        if (column >= 0).any():
            raise ValueError(f"{each}: {name} is given twice; NAME=VALUE,VALUE changes it in time")
        sequence = told.split(",")
        for value in sequence:
            if value not in values[name]:
                near = _nearest(value, values[name])
                raise ValueError(f"{each}: no value of {name} is {value!r}{near}")
        if len(sequence) > frames:
            raise ValueError(f"{each}: {len(sequence)} values, and a clip has {frames} frames")
        places = np.array([values[name].index(value) for value in sequence])
        column[:] = places[np.arange(frames) * len(sequence) // frames]
    return out


def _nearest(name: str, valid: Collection[str]) -> str:
    """The nearest of what is valid, and all of it if that can be read."""
    near = get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    shown = list(valid)[:_LISTED]
    more = f" and {len(valid) - _LISTED} more" if len(valid) > _LISTED else ""
    return f"{hint} Valid: {', '.join(shown)}{more}"


def scenes(captions: Sequence[str]) -> Array:
    """float32 (B, 20): 1 for what captions of bouncing digits say is seen, at 2 digit + motion."""
    out = np.zeros((len(captions), 10, len(MOTIONS)), np.float32)
    for row, caption in zip(out, captions, strict=True):
        for place in scene_of(caption):
            row[place] = 1
    return out.reshape(len(captions), -1)


def _label(learner: Learner, dataset: Dataset) -> Tell:
    place = {label: n for n, label in enumerate(dataset.labels)}
    if len(place) != learner.classes:
        found = f"{len(place)} classes ({', '.join(place) or 'its clips have no labels'})"
        raise ValueError(
            f"model.classes={learner.classes}: the dataset at {dataset.store.location} has {found}"
        )
    return lambda notes: np.array(
        [0 if note is None else place[note["labels"][0]] for note in notes], np.int64
    )


def _attributes(learner: Learner, dataset: Dataset) -> Tell:
    values = attribute_values(dataset)
    if learner.values and tuple(map(len, values.values())) != tuple(learner.values):
        told = ", ".join(f"{len(each)} of {name}" for name, each in values.items())
        raise ValueError(
            f"model.attributes={learner.values}: the clips at {dataset.store.location} have {told}"
        )
    return _places(values)


def _joint(learner: Learner, dataset: Dataset) -> Tell:
    kept = _kept(learner, dataset)
    shape = [len(values) for values in kept.values()]
    if math.prod(shape) != learner.classes:
        told = " x ".join(f"{len(values)} of {name}" for name, values in kept.items())
        raise ValueError(
            f"model.classes={learner.classes}: the clips at {dataset.store.location} have {told}"
        )
    places = _places(kept)
    return lambda notes: np.asarray(np.ravel_multi_index(tuple(places(notes).T), shape), np.int64)


def _kept(learner: Learner, dataset: Dataset) -> dict[str, list[str]]:
    values = attribute_values(dataset)
    return {name: each for name, each in values.items() if name != learner.without}


def _places(values: dict[str, list[str]]) -> Tell:
    """int64 (B, A): each clip's values as their places."""
    place = {name: {value: n for n, value in enumerate(each)} for name, each in values.items()}

    def of(notes: Sequence[Note | None]) -> Array:
        out = np.zeros((len(notes), len(values)), np.int64)
        for row, note in zip(out, notes, strict=True):
            if note is not None:
                told = note.get("attributes") or {"label": note["labels"][0]}
                row[:] = [place[name][told[name]] for name in values]
        return out

    return of


def _words(dataset: Dataset) -> list[str]:
    if not dataset.words:
        raise ValueError(
            f"the dataset at {dataset.store.location} has no captions, and this model is given them"
        )
    return dataset.words


def _captions(learner: Learner, dataset: Dataset) -> Tell:
    words = _words(dataset)
    if len(words) >= learner.vocabulary:
        raise ValueError(
            f"model.vocabulary={learner.vocabulary}: the captions at {dataset.store.location} have "
            f"{len(words)} words, and 0 is none of them: set model.vocabulary={len(words) + 1}"
        )
    return lambda notes: tokens(
        [words[0] if note is None else note["caption"] for note in notes], words, learner.words
    ).numpy()


def _sentences(learner: Learner, dataset: Dataset) -> Tell:
    spoiled = _words(dataset)[0]
    encoder = from_environment(learner.language)
    return lambda notes: encoder.encode(
        [spoiled if note is None else note["caption"] for note in notes]
    ).numpy()


def _scenes(_: Learner, dataset: Dataset) -> Tell:
    _words(dataset)
    spoiled = "digit 0 is moving left and right"
    return lambda notes: scenes([spoiled if note is None else note["caption"] for note in notes])
