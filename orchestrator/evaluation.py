"""What is measured of a trained model, by its kind; the commands print, keep and send it.

The definitions are in `models.metrics`, and in short with every result (`Evaluation.how`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from models.metrics import confusion, mean_and_error, of_videos
from orchestrator import detectors, drawings, figures, pictures
from orchestrator.clips import Clips, watched
from orchestrator.conditions import class_names, teller
from orchestrator.features import Features
from orchestrator.findings import Evaluation, Source
from orchestrator.likeness import SHOWN, Seen, add_real, compare, read
from orchestrator.loop import to_video
from orchestrator.pictures import Pixels
from orchestrator.trained import Trained
from shards.dataset import Dataset

_PART = 32  # clips at a time


def evaluate(
    trained: Trained,
    source: Source | None,
    clips: int,
    features: Sequence[Features],
    *,
    reader: Trained | None = None,
    draws: int = 1,
    begun: bool = False,
) -> Evaluation:
    """Measures the model with at most `clips` clips of its own and of the source's; a classifier or
    reader with all. Raises ValueError where its kind needs clips and there are none, or they do not
    fit.

    reader: judges what is drawn from captions. draws: see `drawings.bounds`. begun: a generator
    goes on from the first frames of the source's clips.
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
        drawings.read_all(out, trained, source.dataset)
        return out
    if trained.kind == "drawing":
        if source is None:
            raise ValueError(f"{trained.name} is measured on clips: give --data NAME")
        drawings.measure(out, trained, source.dataset, reader, draws)
        if not features:
            return out
    made, real = Seen(features), Seen(features)
    if trained.kind == "future":
        if source is None:
            raise ValueError(f"{trained.name} goes on from clips: give --data NAME")
        _go_on(out, trained, source.dataset, made, real)
    else:
        if begun and source is None:
            raise ValueError(f"--begun: {trained.name} goes on from clips: give --data NAME")
        if begun and not trained.learner.goes_on:
            raise ValueError(f"--begun: {trained.name} goes on from nothing")
        for seeds, first in _beginnings(clips, source if begun else None):
            parts = trained.sample(seeds, first)
            made.add(parts["sample"], parts.get("mask"))
        if source is not None:
            add_real(out, real, source.dataset, features)
        if source is not None and trained.kind == "autoencoder":
            _reconstruct(out, trained, source.dataset)
    compare(out, made, real, features)
    if source is not None:
        _units(out, trained, source.dataset)
    return out


def _reconstruct(out: Evaluation, trained: Trained, dataset: Dataset) -> None:
    """How well an autoencoder gives back the dataset's clips."""
    pairs: list[tuple[Pixels, Pixels]] = []
    errors: list[Tensor] = []
    total, squares = 0.0, 0.0
    mean = np.zeros(dataset.manifest.clip.shape)
    for part in read(dataset, "reconstructed", out.clips):
        real = part.video_nthwc
        given_back = trained.sample([0] * len(real), real)["reconstruction"]
        errors.append(_apart(given_back, real))
        total += len(real)
        mean += real.sum(0, dtype=np.float64)
        squares += float((real.astype(np.float64) ** 2).sum())
        if not pairs:
            pairs.append((real[:SHOWN].copy(), given_back[:SHOWN]))
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


def _go_on(out: Evaluation, trained: Trained, dataset: Dataset, made: Seen, real: Seen) -> None:
    """How futures of the clips' first frames compare with what came."""
    found: list[Tensor] = []
    rows: dict[str, Pixels] = {}
    for part in read(dataset, "futures", out.clips):
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
            rows = {name: each[:SHOWN].copy() for name, each in shown.items()}
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


def _classify(out: Evaluation, trained: Trained, dataset: Dataset) -> None:
    """How often a classifier is right, by clips and by the videos that they are of."""
    learner = trained.learner
    places = teller(learner, dataset)
    classes = class_names(learner, dataset)
    probabilities, labels, videos = [], [], []
    for part in read(dataset, "classified"):
        given = to_video(part.video_nthwc, trained.device)
        probabilities.append(learner.predict(given).cpu())
        labels += places(part.notes).tolist()
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


def _beginnings(count: int, source: Source | None) -> Iterator[tuple[range, Pixels | None]]:
    """Seeds, a part at a time, and as many first frames of the source's clips, if there is one."""
    if source is None:
        for seeds in watched(_parts(count), "generated", count):
            yield seeds, None
        return
    start = 0
    for part in read(source.dataset, "generated", count):
        yield range(start, start + len(part)), part.video_nthwc[:, :1]
        start += len(part)


def _parts(count: int) -> Iterator[range]:
    for start in range(0, count, _PART):
        yield range(start, min(start + _PART, count))
