"""What is measured of videos, features and predictions: pure functions of tensors.

Legend: b clips, t frames, h rows, w columns, c colours; n samples, k features or classes.
Clips are uint8, as they are stored and shown, so that real and generated ones are rounded alike.
*Levels* are steps of 8-bit brightness, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STILL_LEVELS = 4.0
"""A pixel that never leaves its mean over time by more than so many levels is still."""


def deviation(video_bthwc: Tensor) -> Tensor:
    """(b, h, w) float32, levels: each pixel's standard deviation over time, the root of the mean
    variance of its colours. 0 for what does not change."""
    variance_bhwc = video_bthwc.float().var(1, correction=0)
    return variance_bhwc.mean(-1).sqrt()


def flicker(video_bthwc: Tensor) -> Tensor:
    """(b, h, w) float32, levels: mean over colours and inner frames of |x_t - (x_(t-1)+x_(t+1))/2|.

    0 for a still pixel and for one that brightens evenly, a for one that alternates between v and
    v + a: it weighs change by its frequency, where `deviation` does not. Wants 3 frames or more.
    """
    video = video_bthwc.float()
    return (video[:, 1:-1] - (video[:, :-2] + video[:, 2:]) / 2).abs().mean((1, -1))


def stillness(video_bthwc: Tensor) -> dict[str, Tensor]:
    """How still clips are, a figure (b,) float32 each, by name; the same for any kind of model.

    The *background* of a clip is the half of its pixels with the smallest `deviation`.
    background_std, background_flicker: the means of `deviation` and `flicker` over it, levels.
    std, flicker: their means over all pixels.
    still_share: the share of all pixels that in every frame and colour are within STILL_LEVELS of
    their mean over time. contrast: the standard deviation over the pixels of the mean frame,
    levels: a grey clip is still as well, and has none.
    """
    deviation_bn, flicker_bn = deviation(video_bthwc).flatten(1), flicker(video_bthwc).flatten(1)
    half = deviation_bn.shape[1] // 2
    background_bn = deviation_bn.argsort(dim=1, stable=True)[:, :half]
    video = video_bthwc.float()
    mean_b1hwc = video.mean(1, keepdim=True)
    away_bhwc = (video - mean_b1hwc).abs().amax(1)
    return {
        "background_std": deviation_bn.gather(1, background_bn).mean(1),
        "background_flicker": flicker_bn.gather(1, background_bn).mean(1),
        "std": deviation_bn.mean(1),
        "flicker": flicker_bn.mean(1),
        "still_share": (away_bhwc.amax(-1) <= STILL_LEVELS).float().mean((1, 2)),
        "contrast": mean_b1hwc.flatten(1, 3).var(1, correction=0).mean(-1).sqrt(),
    }


def mean_and_error(values_n: Tensor) -> tuple[float, float]:
    """(the mean, its standard error); the error is 0 for one value."""
    values = values_n.double()
    spread = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(values.mean()), spread


def frechet_distance(a_nk: Tensor, b_nk: Tensor) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)) of the samples' means m and covariances A, B.

    The squared Wasserstein-2 distance of the two Gaussians (Dowson and Landau 1982), which FID and
    FVD are in the features of one network. Covariances divide by n - 1. In float64; the root's
    trace is that of the symmetric (A^(1/2) B A^(1/2))^(1/2), so that fewer samples than features,
    whose covariances are singular, do no harm. Raises ValueError for fewer than 2 samples, other
    numbers of features, and features that are not finite.
    """
    if a_nk.shape[1:] != b_nk.shape[1:] or a_nk.ndim != 2:
        raise ValueError(f"features of shapes {tuple(a_nk.shape)} and {tuple(b_nk.shape)}")
    for features in (a_nk, b_nk):
        if len(features) < 2:
            raise ValueError(f"{len(features)} samples: a covariance needs at least 2")
        if not features.isfinite().all():
            raise ValueError("features that are not finite")
    a, b = a_nk.double(), b_nk.double()
    cov_a, cov_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    value_k, vector_kk = torch.linalg.eigh(cov_a)
    root_a = vector_kk * value_k.clamp(min=0).sqrt() @ vector_kk.T
    cross_k = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0)
    mean = (a.mean(0) - b.mean(0)).square().sum()
    spread = cov_a.trace() + cov_b.trace() - 2 * cross_k.sqrt().sum()
    return float((mean + spread).clamp(min=0))


def of_videos(probability_nk: Tensor, video_n: Sequence[str]) -> tuple[list[str], Tensor]:
    """(the videos' names in order of appearance, their probabilities (videos, k)).

    A video's probabilities are the mean of its clips'; its class is their argmax.
    """
    names = list(dict.fromkeys(video_n))
    place = {name: row for row, name in enumerate(names)}
    row_n = torch.tensor([place[name] for name in video_n])
    sums = torch.zeros(len(names), probability_nk.shape[1], dtype=torch.float64)
    sums.index_add_(0, row_n, probability_nk.double())
    return names, sums / row_n.bincount(minlength=len(names))[:, None]


def confusion(label_n: Tensor, predicted_n: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64: how often the true class (row) was taken for another (column)."""
    return (label_n * classes + predicted_n).bincount(minlength=classes**2).view(classes, classes)


def class_scores(probability_nk: Tensor) -> dict[str, float]:
    """VideoVAE's scores of videos, from a classifier's probabilities of each (Eq. 10 to 12).

    In nats. i_score: exp(H(mean of the rows) - mean of H(row)), from 1 to k. intra_e: the sum of
    the rows' entropies, as Eq. 11 prints it, which grows with n; intra_e_mean: their mean.
    inter_e: the entropy of the likeliest classes' shares, at most ln k.
    """
    p = probability_nk.double()
    each_n = torch.special.entr(p).sum(1)
    marginal = torch.special.entr(p.mean(0)).sum()
    shares_k = p.argmax(1).bincount(minlength=p.shape[1]) / len(p)
    return {
        "i_score": float((marginal - each_n.mean()).exp()),
        "intra_e": float(each_n.sum()),
        "intra_e_mean": float(each_n.mean()),
        "inter_e": float(torch.special.entr(shares_k).sum()),
    }
