"""What a sweep found, drawn as PNG bytes: functions of its trials, without a clock or any state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from orchestrator.sweeping.contour import contour
from orchestrator.sweeping.drawing import (
    BEST,
    INK,
    STATES,
    VALUES,
    across,
    by_state,
    log_where_wide,
    nothing,
    png,
)
from orchestrator.sweeping.importance import Importance, importances
from orchestrator.sweeping.rows import Axis, Swept, TrialRow, label, measured, value_of

_UNSET = -0.14  # where a line passes below an axis of which its trial has no value


def plots(
    rows: Sequence[TrialRow], swept: Swept, rung_steps: Sequence[int] = ()
) -> dict[str, bytes]:
    """Every picture by its file name. rung_steps: where the scheduler compared, if it did."""
    try:
        found, why = importances(rows, swept), ""
    except ValueError as error:
        found, why = [], str(error)
    leading = [each.path for each in found] or list(swept.kinds)
    return {
        "parallel_coordinates.png": parallel_coordinates(rows, swept),
        "importance.png": importance(found, why, swept),
        "contour.png": contour(rows, swept, leading[:2]),
        "history.png": history(rows, swept),
        "rungs.png": rungs(rows, swept, rung_steps),
    }


def parallel_coordinates(rows: Sequence[TrialRow], swept: Swept) -> bytes:
    """A line a trial across an axis a parameter to its metric; the best one stands out."""
    known = measured(rows)
    best = swept.best(known)
    if best is None:
        return nothing(f"No trial has told {swept.metric} yet")
    axes = [Axis(path, known, kind) for path, kind in swept.kinds.items()]
    values = Axis(swept.metric, [_as_value(row, swept) for row in known], "linear")
    figure = Figure(figsize=(max(6.5, 2.1 * (len(axes) + 1)), 4.4), layout="constrained")
    plot = figure.subplots()
    for row in sorted(known, key=lambda row: row is best):
        heights = [_height(axis, row) for axis in axes] + [values.at(row.metric)]
        style: dict[str, Any] = {
            "color": _colour(values.at(row.metric), swept),
            "alpha": max(0.35, min(0.9, 12 / len(known))),
            "lw": 1.4,
        }
        if row is best:
            style = {"color": BEST, "lw": 3, "marker": "o", "markersize": 6}
        plot.plot(range(len(heights)), heights, **style)
    for x, axis in enumerate([*axes, values]):
        plot.plot([x, x], [0, 1], color=INK, lw=1)
        for height, text in axis.ticks():
            plot.plot([x - 0.02, x], [height, height], color=INK, lw=1)
            plot.text(x - 0.04, height, text, ha="right", va="center", fontsize=9, bbox=_HALO)
        if axis is not values and any(axis.path not in row.values for row in known):
            plot.text(x, _UNSET - 0.03, "not set", ha="center", va="top", fontsize=8)
        name = swept.metric if axis is values else swept.short(axis.path)
        plot.text(x, 1.06, name, ha="center", weight="bold", fontsize=10)
    plot.set_xlim(-0.35, len(axes) + 0.15)
    partial = any(axis.path not in row.values for axis in axes for row in known)
    plot.set_ylim(_UNSET - 0.1 if partial else -0.06, 1.15)
    plot.axis("off")
    wanted = "lower" if swept.mode == "min" else "higher"
    plot.set_title(
        f"Best of {len(known)} trials ({swept.metric}, {wanted} is better): "
        f"{label(best.metric)} with\n{swept.told(best)}",
        fontsize=11,
        wrap=True,
    )
    return png(figure)


def importance(found: Sequence[Importance], why: str, swept: Swept) -> bytes:
    """Bars of what each parameter explains, with the deviation over resampled trials.

    why: said in the picture where there is nothing found. Names the parameters that were left out.
    """
    if not found:
        return nothing(f"What explains {swept.metric}?\n{why}")
    figure = Figure(figsize=(7.5, 1.8 + 0.45 * len(found)), layout="constrained")
    plot = figure.subplots()
    names = [swept.short(each.path) for each in found]
    places = range(len(found))
    doubt = [100 * each.sd for each in found]
    style: dict[str, Any] = {"color": "#0072b2", "ecolor": INK, "capsize": 4, "height": 0.6}
    plot.barh(places, [100 * each.share for each in found], xerr=doubt, **style)
    for place, each in zip(places, found, strict=True):
        text = f"{100 * each.share:.0f} % +- {100 * each.sd:.0f}"
        plot.text(100 * (each.share + each.sd) + 2, place, text, va="center")
    plot.set_yticks(places, names)
    plot.invert_yaxis()
    plot.set_xlim(0, max(125, 118 + max(doubt)))
    plot.set_xticks(range(0, 101, 20))
    left = [swept.short(path) for path in swept.kinds if path not in [e.path for e in found]]
    without = f"; without {', '.join(left)}: the same everywhere, or not in all" if left else ""
    plot.set_xlabel(
        "share of the variance that each alone explains (%), fANOVA, +- 1 sd over resampled\n"
        f"trials, those that were stopped early by their last value{without}",
        fontsize=9,
    )
    plot.spines[["top", "right"]].set_visible(False)
    sure = len(found) < 2 or found[0].share - found[0].sd > found[1].share + found[1].sd
    says = f"{names[0]} matters most to {swept.metric}"
    if not sure:
        says = f"Too few trials to tell {names[0]} from {names[1]}"
    if len(found) == 1:
        says = f"{names[0]} is all that differs"
    plot.set_title(says, fontsize=11)
    return png(figure)


def history(rows: Sequence[TrialRow], swept: Swept) -> bytes:
    """Every trial's metric in their order, and the best so far."""
    known = measured(rows)
    best = swept.best(known)
    if best is None:
        return nothing(f"No trial has told {swept.metric} yet")
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    plot = figure.subplots()
    numbers = [row.number for row in known]
    values = np.array([row.metric for row in known], float)
    running = np.minimum if swept.mode == "min" else np.maximum
    so_far = running.accumulate(values)
    ends = [*numbers, max(row.number for row in rows) + 0.5]
    plot.step(ends, [*so_far, so_far[-1]], where="post", color=INK, lw=2, label="best so far")
    by_state(plot, known, numbers, [float(value) for value in values])
    for row in rows:
        if row.state == "failed" and row not in known:
            plot.plot(row.number, 0.03, "X", color=STATES["failed"][0], transform=across(plot))
    plot.plot(best.number, value_of(best), "*", ms=20, mfc="none", mec=BEST, mew=2)
    plot.set_xlabel("trial")
    plot.set_ylabel(swept.metric)
    log_where_wide(plot, values)
    plot.legend(edgecolor="none", framealpha=0.8, fontsize=9)
    plot.spines[["top", "right"]].set_visible(False)
    failed = sum(row.state == "failed" for row in rows)
    told = f", {failed} failed" if failed else ""
    plot.set_title(
        f"The best of {len(rows)} trials{told}: {label(best.metric)} by trial {best.number}",
        fontsize=11,
    )
    return png(figure)


def rungs(rows: Sequence[TrialRow], swept: Swept, steps: Sequence[int] = ()) -> bytes:
    """All curves by what became of the trial; lines at the steps where trials were compared."""
    drawn = [row for row in rows if row.curve]
    if not drawn:
        return nothing(f"No trial has told {swept.metric} yet")
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    plot = figure.subplots()
    best = swept.best(drawn)
    for row in sorted(drawn, key=lambda row: (row is best, row.state == "finished")):
        colour, mark, _ = STATES[row.state]
        x, y = zip(*row.curve, strict=True)
        width = 3 if row is best else 1.3
        plot.plot(x, y, color=colour, lw=width, alpha=1 if row is best else 0.75)
        plot.plot(x[-1], y[-1], mark, color=colour, ms=7, mec="white", mew=0.7)
    for step in steps:
        here = [row for row in drawn if row.curve[-1][0] >= step]
        plot.axvline(step, color=INK, lw=1, ls=":")
        plot.text(step, 1.01, str(len(here)), transform=across(plot), ha="center", fontsize=9)
    counts = {state: sum(row.state == state for row in rows) for state in STATES}
    for state, (colour, mark, name) in STATES.items():
        if counts[state]:
            plot.plot([], [], color=colour, marker=mark, label=f"{counts[state]} {name}")
    log_where_wide(plot, np.array([value for row in drawn for _, value in row.curve], float))
    plot.set_xlabel(
        "step" + (" (dotted: a rung, above it how many trials reached it)" * bool(steps))
    )
    plot.set_ylabel(swept.metric)
    plot.legend(edgecolor="none", framealpha=0.8, fontsize=9)
    plot.spines[["top", "right"]].set_visible(False)
    told = ", ".join(f"{n} {STATES[state][2]}" for state, n in counts.items() if n)
    plot.set_title(f"{len(rows)} trials: {told}\n", fontsize=11)
    return png(figure)


_HALO = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}


def _as_value(row: TrialRow, swept: Swept) -> TrialRow:
    values = {swept.metric: row.metric}
    return TrialRow(
        number=row.number,
        name=row.name,
        values=values,
        metric=row.metric,
        state=row.state,
        rung=row.rung,
        seconds=row.seconds,
    )


def _height(axis: Axis, row: TrialRow) -> float:
    return axis.at(row.values[axis.path]) if axis.path in row.values else _UNSET


def _colour(share: float, swept: Swept) -> Any:
    """Of a metric at `share` of its range: dark is good, as on white paper it is seen first."""
    good = 1 - share if swept.mode == "min" else share
    return colormaps[VALUES](0.85 * (1 - good))
