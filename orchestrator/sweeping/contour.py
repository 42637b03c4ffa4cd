"""A sweep's metric over its leading parameters: a table, a surface, or points over one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from orchestrator.sweeping.drawing import (
    BEST,
    FAINT,
    INK,
    VALUES,
    by_state,
    log_where_wide,
    nothing,
    png,
)
from orchestrator.sweeping.rows import Axis, Swept, TrialRow, label, measured, value_of


def contour(rows: Sequence[TrialRow], swept: Swept, leading: Sequence[str]) -> bytes:
    """The metric over the two leading parameters: a table of mean values where both have few
    levels, else a surface between the trials. Over one parameter: its points."""
    known = [row for row in measured(rows) if all(path in row.values for path in leading)]
    if not known or not leading:
        return nothing(f"No trial has told {swept.metric} yet")
    axes = [Axis(path, known, swept.kinds[path]) for path in leading]
    figure = Figure(figsize=(6.8, 4.8), layout="constrained")
    plot = figure.subplots()
    if len(axes) == 1:
        _response(plot, known, swept, axes[0])
        return png(figure)
    x, y = axes
    z = np.array([value_of(row) for row in known])
    norm = Normalize(z.min(), z.max() if z.max() > z.min() else z.min() + 1)
    cmap = VALUES if swept.mode == "max" else f"{VALUES}_r"
    if x.kind == y.kind == "choice":
        _table(plot, known, x, y, norm, cmap)
    else:
        _surface(plot, known, x, y, norm, cmap)
    best = swept.best(known)
    assert best is not None
    if x.kind != "choice" or y.kind != "choice":
        here = x.at(best.values[x.path]), y.at(best.values[y.path])
        plot.plot(*here, "*", ms=20, mfc="white", mec=BEST, mew=2)
    plot.set_xticks(*zip(*x.ticks(), strict=True))
    plot.set_yticks(*zip(*y.ticks(), strict=True))
    plot.set_xlabel(x.path)
    plot.set_ylabel(y.path)
    figure.colorbar(ScalarMappable(norm, cmap), ax=plot, label=swept.metric)
    wanted = "lower is better" if swept.mode == "min" else "higher is better"
    plot.set_title(
        f"{swept.metric} over {swept.short(x.path)} and {swept.short(y.path)}: bright is good "
        f"({wanted})",
        fontsize=11,
    )
    return png(figure)


def _response(plot: Any, rows: Sequence[TrialRow], swept: Swept, axis: Axis) -> None:
    """The metric against one parameter; the line goes through means of equal values."""
    places = [axis.at(row.values[axis.path]) for row in rows]
    values = [value_of(row) for row in rows]
    by_place: dict[float, list[float]] = {place: [] for place in sorted(places)}
    for place, value in zip(places, values, strict=True):
        by_place[place].append(value)
    means = [(place, np.mean(inside)) for place, inside in by_place.items()]
    plot.plot(*zip(*means, strict=True), color=FAINT, lw=2, zorder=0)
    by_state(plot, rows, places, values)
    best = swept.best(rows)
    assert best is not None
    plot.plot(
        axis.at(best.values[axis.path]), value_of(best), "*", ms=20, mfc="none", mec=BEST, mew=2
    )
    plot.set_xticks(*zip(*axis.ticks(), strict=True))
    plot.set_xlabel(axis.path)
    plot.set_ylabel(swept.metric)
    log_where_wide(plot, np.array(values, float))
    plot.legend(edgecolor="none", framealpha=0.8, fontsize=9)
    plot.spines[["top", "right"]].set_visible(False)
    plot.set_title(
        f"{swept.metric} is best ({label(best.metric)}) at {swept.told(best)}", fontsize=11
    )


def _table(plot: Any, rows: Sequence[TrialRow], x: Axis, y: Axis, norm: Any, cmap: str) -> None:
    """A cell for each pair of levels, with the mean of its trials."""
    wide, high = 1 / max(1, len(x.levels) - 1), 1 / max(1, len(y.levels) - 1)
    for level_x in x.levels:
        for level_y in y.levels:
            inside = [
                value_of(row)
                for row in rows
                if (row.values[x.path], row.values[y.path]) == (level_x, level_y)
            ]
            at = x.at(level_x), y.at(level_y)
            corner = at[0] - wide / 2, at[1] - high / 2
            if not inside:
                plot.add_patch(Rectangle(corner, wide, high, fc="#f4f4f4", hatch="//", ec="#ddd"))
                continue
            colour = colormaps[cmap](norm(np.mean(inside)))
            plot.add_patch(Rectangle(corner, wide, high, fc=colour, ec="white"))
            dark = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 0.5
            text = f"{np.mean(inside):.4g}" + (f"\n(of {len(inside)})" * (len(inside) > 1))
            plot.text(*at, text, ha="center", va="center", color="white" if dark else "black")
    plot.set_xlim(-wide / 2, 1 + wide / 2) if len(x.levels) > 1 else plot.set_xlim(0, 1)
    plot.set_ylim(-high / 2, 1 + high / 2) if len(y.levels) > 1 else plot.set_ylim(0, 1)
    plot.tick_params(length=0)


def _surface(plot: Any, rows: Sequence[TrialRow], x: Axis, y: Axis, norm: Any, cmap: str) -> None:
    """Triangles between the trials, where they span an area; the trials as dots."""
    at = np.array([[x.at(row.values[x.path]), y.at(row.values[y.path])] for row in rows])
    z = np.array([value_of(row) for row in rows])
    places, inverse = np.unique(at.round(6), axis=0, return_inverse=True)
    means = np.array([z[inverse.ravel() == n].mean() for n in range(len(places))])
    if len(places) > 3 and np.linalg.matrix_rank(places - places[0], tol=1e-3) == 2:
        plot.tricontourf(*places.T, means, levels=12, norm=norm, cmap=cmap, alpha=0.85)
    plot.scatter(*at.T, c=z, norm=norm, cmap=cmap, edgecolors=INK, s=45, zorder=3)
    plot.set_xlim(-0.05, 1.05)
    plot.set_ylim(-0.05, 1.05)
