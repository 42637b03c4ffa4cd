"""Figures that are drawn, as PNG bytes: maps of what moves, confusion matrices, curves.

A figure is a function of its data: no clock, no fonts of the machine, no state kept between two.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.metrics import deviation
from orchestrator.curve import Curve
from orchestrator.pictures import Pixels

DPI = 160
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
_MARKS = "osD^vP"
_NAMED, _NUMBERED = 120, 15  # classes up to which a matrix has names, and numbers


def stillness_maps(rows: Mapping[str, Pixels]) -> bytes:
    """A PNG: for each name the clips' middle frames, below each how much its pixels vary over time.

    rows: uint8 (N, T, H, W, 3) by name; all maps share one scale of levels.
    """
    maps = {name: deviation(torch.from_numpy(clips.copy())).numpy() for name, clips in rows.items()}
    top = max(float(np.percentile(each, 99)) for each in maps.values())
    columns = max(len(clips) for clips in rows.values())
    figure = Figure(figsize=(1.15 * columns + 1.6, 2.3 * len(rows) + 0.2), layout="constrained")
    axes = figure.subplots(2 * len(rows), columns, squeeze=False)
    shown: Any = None
    for n, (name, clips) in enumerate(rows.items()):
        for column in range(columns):
            above, below = axes[2 * n : 2 * n + 2, column]
            for axis in (above, below):
                axis.set_xticks([])
                axis.set_yticks([])
            if column >= len(clips):
                above.axis("off")
                below.axis("off")
                continue
            above.imshow(clips[column, clips.shape[1] // 2], interpolation="nearest")
            shown = below.imshow(
                maps[name][column],
                cmap="magma",
                vmin=0,
                vmax=max(top, 1e-3),
                interpolation="nearest",
            )
        axes[2 * n, 0].set_ylabel(f"{name}\nmiddle frame")
        axes[2 * n + 1, 0].set_ylabel(f"{name}\nvariation")
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, aspect=30)
    bar.set_label("standard deviation over time (levels of 255)")
    return _png(figure)


def confusion_matrix(counts_kk: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """A PNG of shares of each true class (row); numbers and names where there is room."""
    many = len(classes)
    shares = counts_kk / np.maximum(counts_kk.sum(1, keepdims=True), 1)
    side = min(2.6 + 0.32 * many, 12)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    if many <= _NAMED:
        names = [f"{name} ({n})" for name, n in zip(classes, counts_kk.sum(1), strict=True)]
        pt = min(10, 0.75 * 60 * side / many)
        axis.set_xticks(
            range(many), classes, rotation=60, ha="right", rotation_mode="anchor", fontsize=pt
        )
        axis.set_yticks(range(many), names, fontsize=pt)
    if many <= _NUMBERED:
        for row, column in np.ndindex(many, many):
            colour = "white" if shares[row, column] > 0.6 else "black"
            text = f"{100 * shares[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    right = np.trace(counts_kk) / max(counts_kk.sum(), 1)
    axis.set_title(f"{100 * right:.1f} % of {counts_kk.sum()} videos", fontsize=10)
    figure.colorbar(shown, ax=axis, fraction=0.04, pad=0.02).set_label("share of the true class")
    return _png(figure)


def accuracy_curve(curve: Curve) -> bytes:
    """A PNG like figure 4b and 4c: accuracy, and the gain over random weights, against labels."""
    panels = 2 if curve.gain else 1
    figure = Figure(figsize=(4.2 * panels, 3.3), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    shares = sorted({point.fraction for series in curve.series for point in series.points})
    for n, series in enumerate(curve.series):
        axes[0].errorbar(
            [point.fraction for point in series.points],
            [100 * point.mean for point in series.points],
            yerr=[100 * point.std for point in series.points],
            label=series.label,
            color=_COLOURS[n % len(_COLOURS)],
            marker=_MARKS[n % len(_MARKS)],
            markersize=4,
            capsize=3,
        )
    axes[0].axhline(100 * curve.chance, color="0.5", linestyle=":", label="chance")
    axes[0].set_ylabel("accuracy (%)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=8, title="mean and s.d. over seeds", title_fontsize=8)
    if curve.gain:
        axes[1].errorbar(
            [point.fraction for point in curve.gain],
            [point.mean for point in curve.gain],
            yerr=[point.std for point in curve.gain],
            color=_COLOURS[0],
            marker="o",
            markersize=4,
            capsize=3,
        )
        axes[1].axhline(1, color="0.5", linestyle=":")
        axes[1].set_ylabel("accuracy, fine-tuned / random")
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(shares, [_share(share) for share in shares], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel("share of the labelled clips")
        axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def table(title: str, rows: Sequence[Sequence[str]]) -> bytes:
    """A PNG of a table; the first row is its heading."""
    width = 1.0 + sum(max(len(row[n]) for row in rows) for n in range(len(rows[0]))) / 11
    figure = Figure(figsize=(width, 0.5 + 0.26 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.axis("off")
    axis.set_title(title, fontsize=9)
    drawn = axis.table(cellText=[list(row) for row in rows], loc="center", cellLoc="left", edges="")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    drawn.auto_set_column_width(list(range(len(rows[0]))))
    for (row, _), cell in drawn.get_celld().items():
        if row == 0 or rows[row][0]:
            cell.visible_edges = "T"
            cell.set_text_props(weight="bold" if row == 0 else "normal")
    return _png(figure)


def _share(share: float) -> str:
    """1/8 where it is one, else a decimal."""
    parts = round(1 / share)
    if abs(parts * share - 1) < 1e-3:
        return "1" if parts == 1 else f"1/{parts}"
    return f"{share:g}"


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
