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
    ]
}
