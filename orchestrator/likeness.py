"""How clips that a model makes resemble real ones: stillness, distances, a classifier's opinion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from models.metrics import (
    STILL_LEVELS,
    class_scores,
    frechet_distance,
    mean_and_error,
    stillness,
)
from orchestrator import figures
from orchestrator.clips import Clips, clips_of, watched
from orchestrator.conditions import Tell
from orchestrator.features import Features
from orchestrator.findings import Evaluation
from orchestrator.pictures import Pixels
from shards.dataset import Dataset

SHOWN = 6  # clips in a picture
_STILLNESS = (
    "of 8-bit levels over a clip's frames, mean over clips; the background is the half of a clip's "
    "pixels that vary least: background_std and std are standard deviations over time, flicker is "
    "mean |x_t - (x_(t-1) + x_(t+1)) / 2|, still_share the pixels never more than "
    f"{STILL_LEVELS:g} from their mean, contrast the mean frame's standard deviation over place; "
    "*_error is the standard error, real_* the same of the dataset's clips"
)


def add_real(out: Evaluation, real: Seen, dataset: Dataset, features: Sequence[Features]) -> None:
    """Takes the dataset's clips, and how many of them a classifier has right, if it knows them."""
    truth = next((each.truth for each in features if each.truth is not None), None)
    tell: Tell | None = None
    if truth is not None:
        with suppress(ValueError):  # clips of other classes have no right answer
            tell = truth(dataset)
    places: list[Tensor] = []
    for part in read(dataset, "real", out.clips):
        real.add(part.video_nthwc)
        if tell is not None:
            places.append(torch.from_numpy(tell(part.notes)))
    if places:
        out.metrics["real_accuracy"] = real.right(torch.cat(places))


class Seen:
    """Clips of one origin, as figures; the first few also as they are."""

    def __init__(self, features: Sequence[Features]) -> None:
        self._features = features
        self._figures: list[dict[str, Tensor]] = []
        self._vectors: list[list[Tensor]] = [[] for _ in features]
        self._opinions: list[Tensor] = []
        self.shown: Pixels | None = None
        self.count = 0

    def add(self, clips: Pixels, mask: Pixels | None = None) -> None:
        """Takes some more clips. mask: which stream made each pixel, white the foreground."""
        clips = np.ascontiguousarray(clips)
        self.count += len(clips)
        if self.shown is None:
            self.shown = clips[:SHOWN].copy()
        found = stillness(torch.from_numpy(clips))
        if mask is not None:
            found["mask_mean"] = torch.from_numpy(mask[..., 0] / 255).mean((1, 2, 3))
        self._figures.append(found)
        for vectors, features in zip(self._vectors, self._features, strict=True):
            vectors.append(features.of(clips))
            if features.opinion is not None:
                self._opinions.append(features.opinion(clips))

    def metrics(self, prefix: str) -> dict[str, float]:
        """Means and standard errors over the clips."""
        out: dict[str, float] = {}
        for name in self._figures[0]:
            mean, error = mean_and_error(torch.cat([found[name] for found in self._figures]))
            out |= {f"{prefix}{name}": mean, f"{prefix}{name}_error": error}
        if self._opinions:
            scores = class_scores(torch.cat(self._opinions))
            out |= {f"{prefix}{name}": value for name, value in scores.items()}
        return out

    def right(self, truth_n: Tensor) -> float:
        """The share of clips whose likeliest class is the true one."""
        return float((torch.cat(self._opinions).argmax(1) == truth_n).double().mean())

    def vectors(self) -> list[Tensor]:
        """The features (N, K) of all clips, of every kind."""
        return [torch.cat(parts) for parts in self._vectors]


def compare(out: Evaluation, made: Seen, real: Seen, features: Sequence[Features]) -> None:
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
    if "i_score" in out.metrics:
        out.how["i_score"] = (
            f"by the classifier of the Frechet distance, in nats: {made.count} generated clips, "
            f"real_* the {real.count} real ones, the bound; i_score is exp(entropy of the mean "
            "opinion - mean entropy), intra_e the sum of entropies over clips, intra_e_mean their "
            "mean, inter_e the entropy of the likeliest classes' shares; real_accuracy the share "
            "of real clips that the classifier has right"
        )
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


def read(dataset: Dataset, what: str, most: int | None = None) -> Iterator[Clips]:
    """The dataset's clips, at most `most`, with a bar that says `what` is done with them."""
    count = dataset.samples if most is None else min(most, dataset.samples)
    return watched(clips_of(dataset, most), what, count)
