"""What the pictures of a sweep share: colours, marks, and the way to bytes.

Colours are Okabe and Ito's for states, with a mark of its own for each, and cividis for values:
both are told apart by the colour-blind and on paper.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from orchestrator.sweeping.rows import TrialRow

DPI = 120
STATES = {  # colour, mark and name, in the order of a legend
    "finished": ("#0072b2", "o", "ran to the end"),
    "stopped": ("#e69f00", "s", "stopped early"),
    "running": ("#009e73", "^", "running"),
    "failed": ("#d55e00", "X", "failed"),
}
BEST, INK, FAINT = "#d55e00", "#333333", "#bbbbbb"
VALUES = "cividis"


def by_state(plot: Any, rows: Sequence[TrialRow], x: Sequence[float], y: Sequence[float]) -> None:
    """Dots in their trials' colours and marks."""
    for state, (colour, mark, name) in STATES.items():
        chosen = [n for n, row in enumerate(rows) if row.state == state]
        if chosen:
            plot.plot(
                [x[n] for n in chosen],
                [y[n] for n in chosen],
                mark,
                color=colour,
                ms=8,
                mec="white",
                mew=0.7,
                ls="none",
                label=name,
            )


def log_where_wide(plot: Any, values: Any) -> None:
    """Two decades or more of positive values are drawn on a logarithmic axis."""
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() / finite.min() > 100:
        plot.set_yscale("log")


def across(plot: Any) -> Any:
    """The transform of x in data and y in [0, 1] of the plot."""
    return plot.get_xaxis_transform()


def nothing(says: str) -> bytes:
    """A PNG that says why there is no picture."""
    figure = Figure(figsize=(6.5, 1.6))
    figure.text(0.5, 0.5, says, ha="center", va="center", fontsize=12, color=INK)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
