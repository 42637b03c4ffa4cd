"""The papers' tables as values: what they print, and which of our runs fill each cell.

Adding a table is adding a value to `TABLES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cell:
    """printed: as the paper has it. experiment: whose runs measure the same; None for a model that
    is not ours to train."""

    printed: str
    experiment: str | None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of a paper. cells: by (row, column). metrics: MLflow's names of what is shown of a
    run, the one that the paper's figure is nearest to first. note: how the two may be compared."""

    name: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    metrics: tuple[str, ...]
    note: str


_DIGITS = {"One digit": ("one", ""), "Two digits": ("two", "")}
_DIGITS |= {f"{name}, captions": (word, "_captions") for name, (word, _) in _DIGITS.items()}
_SYNC_DRAW = {
    ("Sync-DRAW", ""): ("340.39", "639.71", "327.11", "524.41"),
    ("Global", "global_"): ("500.01", "899.06", "512.46", "860.54"),
    ("Baseline", "baseline_"): ("3561.23", "5240.65", "3478.26", "5167.94"),
}

_VIDEO_VAE_NOTE = (
    "Ours are of as many clips as were evaluated (`evaluate RUN --classifier JUDGE --clips N`), "
    "the mean entropy for the paper's sum, which grows with N; scores of two judges do not "
    "compare. real_* is the judge's of real clips, the bound: docs/papers/video_vae.md."
)
_SCORES = ("val/i_score", "val/intra_e_mean", "val/inter_e", "val/real_i_score")
_ABLATION = {
    "static": ("_static", ("40.33", "0.42", "1.28")),
    "-C-S": ("_plain", ("17.64", "0.73", "1.83")),
    "-C+S": ("_structured", ("7.79", "1.35", "3.63")),
    "+C-S": ("_conditional", ("14.81", "1.02", "2.56")),
    "+C+S": ("", ("5.50", "1.37", "3.94")),
}
_RIVALS = {
    ("Chair CAD", "comparator"): ("deep_rotator_chairs", "14.68, 1.34, 3.39"),
    ("Chair CAD", "VideoVAE"): ("video_vae_chairs", "5.50, 1.37, 3.94"),
    ("Weizmann", "comparator"): ("mocogan_weizmann", "23.58, 2.91, 13.87"),
    ("Weizmann", "VideoVAE"): ("video_vae_weizmann", "9.53, 4.37, 69.55"),
    ("Flickr", "comparator"): ("vgan_golf", "46.96, 0.692, 1.58"),
    ("Flickr", "VideoVAE"): ("video_vae_flickr", "44.03, 0.691, 1.62"),
}

TABLES: dict[str, PaperTable] = {
    table.name: table
    for table in [
        PaperTable(
            name="sync_draw_table1",
            title="Sync-DRAW (2017), table 1: negative log likelihood, lower is better",
            rows=tuple(row for row, _ in _SYNC_DRAW),
            columns=tuple(_DIGITS),
            cells={
                (row, column): Cell(
                    printed=figure, experiment=f"sync_draw_{prefix}{word}_digit{suffix}"
                )
                for (row, prefix), figures in _SYNC_DRAW.items()
                for figure, (column, (word, suffix)) in zip(figures, _DIGITS.items(), strict=True)
            },
            metrics=("val/reconstruction", "val/above_floor", "val/elbo"),
            note="Ours are nats a video on test clips: the reconstruction, what of it lies above "
            "the entropy of the grey pixels themselves, and minus the bound. The paper's rows lie "
            "below that entropy for MNIST (456 for one digit, 855 for two), so they cannot be the "
            "same quantity on grey clips: docs/papers/sync_draw.md.",
        ),
        PaperTable(
            name="video_vae_table1",
            title="VideoVAE (2018), table 1, Chair CAD: Intra-E, Inter-E, I-score (bound 1.98, "
            "1.39, 4.01)",
            rows=("Chair CAD",),
            columns=tuple(_ABLATION),
            cells={
                ("Chair CAD", column): Cell(
                    printed=", ".join(figures), experiment=f"video_vae_chairs{suffix}"
                )
                for column, (suffix, figures) in _ABLATION.items()
            },
            metrics=_SCORES,
            note=_VIDEO_VAE_NOTE,
        ),
        PaperTable(
            name="video_vae_table2",
            title="VideoVAE (2018), table 2: Intra-E, Inter-E, I-score",
            rows=("Chair CAD", "Weizmann", "Flickr"),
            columns=("comparator", "VideoVAE"),
            cells={
                place: Cell(printed=printed, experiment=experiment)
                for place, (experiment, printed) in _RIVALS.items()
            },
            metrics=_SCORES,
            note=f"{_VIDEO_VAE_NOTE} The comparators are Deep Rotator, MoCoGAN and VGAN.",
        ),
    ]
}
