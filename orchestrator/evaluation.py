"""What is measured of a trained model, by its kind; the commands print, keep and send it.

The definitions are in `models.metrics`, and in short with every result (`Evaluation.how`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.metrics import (
    STILL_LEVELS,
    confusion,
    frechet_distance,
    mean_and_error,
    of_videos,
    stillness,
)
from orchestrator import detectors, drawings, figures, pictures
from orchestrator.clips import Clips, clips_of, watched
from orchestrator.features import Features
from orchestrator.loop import to_video
from orchestrator.pictures import Pixels
from orchestrator.start import conditions_of
from orchestrator.trained import Trained
from shards.dataset import Dataset

_PART = 32  # clips at a time
_SHOWN = 6  # clips in a picture
_STILLNESS = (
    "of 8-bit levels over a clip's frames, mean over clips; the background is the half of a clip's "
    "pixels that vary least: background_std and std are standard deviations over time, flicker is "
    "mean |x_t - (x_(t-1) + x_(t+1)) / 2|, still_share the pixels never more than "
    f"{STILL_LEVELS:g} from their mean, contrast the mean frame's standard deviation over place; "
    "*_error is the standard error, real_* the same of the dataset's clips"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The clips that a model is measured with. trained_on: whether it has learned from them."""

    name: str
    dataset: Dataset
    trained_on: bool


@dataclass(kw_only=True)
class Evaluation:
    """What came out: metrics by name (in MLflow `val/<name>`), what each means, and pictures."""

    run: str
    step: int
    kind: str
    data: dict[str, Any] | None
    clips: int
    metrics: dict[str, float] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures, JSON-able."""
        return {name: value for name, value in vars(self).items() if name != "files"}


def evaluate(
    trained: Trained,
    source: Source | None,
    clips: int,
    features: Sequence[Features],
    *,
    reader: Trained | None = None,
    draws: int = 1,
) -> Evaluation:
    """Measures the model with at most `clips` clips of its own and of the source's; a classifier or
    reader with all. Raises ValueError where its kind needs clips and there are none, or they do not
    fit.

    reader: judges what is drawn from captions. draws: see `drawings.bounds`.
    """
    data = None
    if source is not None:
        data = {
            "name": source.name,
            "version": source.dataset.version,
            "trained_on": source.trained_on,
        }
    out = Evaluation(run=trained.name, step=trained.step, kind=trained.kind, data=data, clips=clips)
    if trained.kind == "classifier":
        assert source is not None, "the command asks for test clips"
        _classify(out, trained, source.dataset)
        _units(out, trained, source.dataset)
        return out
    if trained.kind == "reader":
        assert source is not None, "the command asks for test clips"
        _take(out, drawings.reading(trained, source.dataset))
        out.clips = source.dataset.samples
        return out
    if trained.kind == "drawing":
        if source is None:
            raise ValueError(f"{trained.name} is measured on clips: give --data NAME")
        _take(out, drawings.measured(trained, source.dataset, clips, reader, draws))
        if not features:
            return out
    made, real = _Seen(features), _Seen(features)
    if trained.kind == "future":
        if source is None:
            raise ValueError(f"{trained.name} goes on from clips: give --data NAME")
        _go_on(out, trained, source.dataset, made, real)
    else:
        for seeds in watched(_parts(clips), "generated", clips):
            parts = trained.sample(seeds)
            made.add(parts["sample"], parts.get("mask"))
        if source is not None:
            for part in _read(source.dataset, "real", clips):
                real.add(part.video_nthwc)
        if source is not None and trained.kind == "autoencoder":
            _reconstruct(out, trained, source.dataset)
    _compare(out, made, real, features)
    if source is not None:
        _units(out, trained, source.dataset)
    return out


class _Seen:
    """Clips of one origin, as figures; the first few also as they are."""

    def __init__(self, features: Sequence[Features]) -> None:
        self._features = features
        self._figures: list[dict[str, Tensor]] = []
        self._vectors: list[list[Tensor]] = [[] for _ in features]
        self.shown: Pixels | None = None
        self.count = 0

    def add(self, clips: Pixels, mask: Pixels | None = None) -> None:
        """Takes some more clips. mask: which stream made each pixel, white the foreground."""
        clips = np.ascontiguousarray(clips)
        self.count += len(clips)
        if self.shown is None:
            self.shown = clips[:_SHOWN].copy()
        found = stillness(torch.from_numpy(clips))
        if mask is not None:
            found["mask_mean"] = torch.from_numpy(mask[..., 0] / 255).mean((1, 2, 3))
        self._figures.append(found)
        for vectors, features in zip(self._vectors, self._features, strict=True):
            vectors.append(features.of(clips))

    def metrics(self, prefix: str) -> dict[str, float]:
        """Means and standard errors over the clips."""
        out: dict[str, float] = {}
        for name in self._figures[0]:
            mean, error = mean_and_error(torch.cat([found[name] for found in self._figures]))
            out |= {f"{prefix}{name}": mean, f"{prefix}{name}_error": error}
        return out

    def vectors(self) -> list[Tensor]:
        """The features (N, K) of all clips, of every kind."""
        return [torch.cat(parts) for parts in self._vectors]


def _compare(out: Evaluation, made: _Seen, real: _Seen, features: Sequence[Features]) -> None:
    """Stillness of both, distances between them."""
    out.metrics |= made.metrics("")
    out.how["stillness"] = _STILLNESS
    out.details = {"generated_clips": made.count, "real_clips": real.count}
    if "mask_mean" in out.metrics:
        out.how["mask_mean"] = "the foreground's share of the video, mean over pixels"
    assert made.shown is not None, "at least one clip"
    rows = {"generated": made.shown}
    if real.shown is not None:
        out.metrics |= real.metrics("real_")
        rows["real"] = real.shown
    out.files["stillness.png"] = figures.stillness_maps(rows)
    assert not features or real.shown is not None, "the command asks for real clips"
    for kind, of_made, of_real in zip(features, made.vectors(), real.vectors(), strict=True):
        out.metrics[kind.metric] = frechet_distance(of_made, of_real)
        halves = of_real[::2], of_real[1::2]
        if len(halves[1]) > 1:
            out.metrics[f"{kind.metric}_real_halves"] = frechet_distance(*halves)
        size = of_made.shape[1]
        few = min(len(of_made), len(of_real)) <= size
        singular = f"; with no more clips than the {size} features it comes out too large"
        out.how[kind.metric] = (
            f"{kind.how}; {len(of_made)} generated against {len(of_real)} real clips of "
            f"{made.shown.shape[1]} frames{singular if few else ''}. *_real_halves: between every "
            "other real clip and the rest, what noise alone gives for half as many"
        )


def _reconstruct(out: Evaluation, trained: Trained, dataset: Dataset) -> None:
    """How well an autoencoder gives back the dataset's clips."""
    pairs: list[tuple[Pixels, Pixels]] = []
    errors: list[Tensor] = []
    total, squares = 0.0, 0.0
    mean = np.zeros(dataset.manifest.clip.shape)
    for part in _read(dataset, "reconstructed", out.clips):
        real = part.video_nthwc
        given_back = trained.sample([0] * len(real), real)["reconstruction"]
        errors.append(_apart(given_back, real))
        total += len(real)
        mean += real.sum(0, dtype=np.float64)
        squares += float((real.astype(np.float64) ** 2).sum())
        if not pairs:
            pairs.append((real[:_SHOWN].copy(), given_back[:_SHOWN]))
    squared_n, absolute_n = torch.cat(errors).unbind(1)
    variance = squares / (total * mean.size) - float(((mean / total) ** 2).mean())
    mse = float(squared_n.mean())
    out.metrics |= {
        "reconstruction_mae": mean_and_error(absolute_n)[0],
        "reconstruction_mae_error": mean_and_error(absolute_n)[1],
        "reconstruction_psnr": 10 * float(np.log10(255**2 / max(mse, 1e-12))),
        "reconstruction_r2": 1 - mse / max(variance, 1e-12),
    }
    out.how["reconstruction"] = (
        "mae in 8-bit levels; psnr in dB of the mean squared error over all clips; r2 is the share "
        "of the variance around the clips' mean that is given back: 0 for answering with that mean"
    )
    rows = dict(zip(("real", "reconstruction"), pairs[0], strict=True))
    out.files["reconstructions.gif"] = pictures.animated_rows(rows)
    out.files["reconstructions.png"] = pictures.streams_sheet(rows)


def _go_on(out: Evaluation, trained: Trained, dataset: Dataset, made: _Seen, real: _Seen) -> None:
    """How futures of the clips' first frames compare with what came."""
    found: list[Tensor] = []
    rows: dict[str, Pixels] = {}
    for part in _read(dataset, "futures", out.clips):
        clips = part.video_nthwc
        parts = trained.sample([0] * len(clips), clips[:, :1])
        futures, still = parts["sample"], np.broadcast_to(clips[:, :1], clips.shape)
        made.add(futures, parts.get("mask"))
        real.add(clips)
        first = _apart(futures[:, :1], clips[:, :1])[:, 1]
        later = [_apart(each[:, 1:], clips[:, 1:])[:, 1] for each in (futures, still)]
        found.append(torch.stack([first, *later], 1))
        if not rows:
            shown = {"input": still, "future": futures, "real": clips}
            rows = {name: each[:_SHOWN].copy() for name, each in shown.items()}
    for name, values in zip(
        ("first_frame_mae", "future_mae", "still_mae"), torch.cat(found).unbind(1), strict=True
    ):
        out.metrics[name], out.metrics[f"{name}_error"] = mean_and_error(values)
    out.how["future"] = (
        "mean absolute differences in 8-bit levels: of the future's first frame from the input, of "
        "its other frames from what came, and, still_mae, of the input repeated from what came. A "
        "plausible future need not be what came"
    )
    out.files["futures.gif"] = pictures.animated_rows(rows)
    out.files["futures.mp4"] = pictures.animated_rows_mp4(rows)
    out.files["futures.png"] = pictures.streams_sheet(rows)


def _take(out: Evaluation, found: drawings.Measured) -> None:
    out.metrics |= found.metrics
    out.how |= found.how
    out.files |= found.files


def _classify(out: Evaluation, trained: Trained, dataset: Dataset) -> None:
    """How often a classifier is right, by clips and by the videos that they are of."""
    conditions_of(trained.learner, dataset)  # the number of classes agrees
    classes = dataset.labels
    place = {label: n for n, label in enumerate(classes)}
    probabilities, labels, videos = [], [], []
    for part in _read(dataset, "classified"):
        given = to_video(part.video_nthwc, trained.device)
        probabilities.append(trained.learner.predict(given).cpu())
        labels += [place[note["labels"][0]] for note in part.notes]
        videos += _videos(part)
    probability_nk, label_n = torch.cat(probabilities), torch.tensor(labels)
    names, of_video_vk = of_videos(probability_nk, videos)
    label_of = dict(zip(videos, labels, strict=True))
    label_v = torch.tensor([label_of[name] for name in names])
    right_v = (of_video_vk.argmax(1) == label_v).double()
    counts_kk = confusion(label_v, of_video_vk.argmax(1), len(classes))
    accuracy, error = mean_and_error(right_v)
    out.clips = len(labels)
    out.metrics = {
        "accuracy": accuracy,
        "accuracy_error": error,
        "clip_accuracy": float((probability_nk.argmax(1) == label_n).double().mean()),
        "chance": 1 / len(classes),
        "majority": int(counts_kk.sum(1).max()) / len(names),
        "videos": float(len(names)),
    }
    out.how["accuracy"] = (
        "the share of source videos that are right: a video's probabilities are the mean of those "
        "of its clips, its class the largest; clip_accuracy is that of single clips; chance is 1 / "
        "classes, majority what the most frequent class alone would give"
    )
    out.details = {"classes": classes, "confusion": counts_kk.tolist()}
    out.files["confusion.png"] = figures.confusion_matrix(counts_kk.numpy(), classes)


def _units(out: Evaluation, trained: Trained, dataset: Dataset) -> None:
    """What hidden units fire on, in the clips that were measured with."""
    if trained.learner.detectors is not None:
        out.files |= detectors.of_units(trained.learner.detectors, dataset, out.clips)
        out.how["units"] = detectors.HOW


def _read(dataset: Dataset, what: str, most: int | None = None) -> Iterator[Clips]:
    count = dataset.samples if most is None else min(most, dataset.samples)
    return watched(clips_of(dataset, most), what, count)


def _videos(part: Clips) -> list[str]:
    """The video that each clip is of; its own key where the dataset does not say."""
    return [
        f"{note.get('source', key)} {note.get('entry', '')}"
        for key, note in zip(part.keys, part.notes, strict=True)
    ]


def _apart(one: Pixels, other: Pixels) -> Tensor:
    """(N, 2) float64: each clip's mean squared and mean absolute difference, in levels."""
    difference = torch.from_numpy(one.astype(np.float64) - other).flatten(1)
    return torch.stack([difference.square().mean(1), difference.abs().mean(1)], 1)


def _parts(count: int) -> Iterator[range]:
    for start in range(0, count, _PART):
        yield range(start, min(start + _PART, count))
