"""Tells a loss that is not finite, or explodes, from one that may go on."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from orchestrator.loop import StepsDone

WINDOWS = 20


class DivergingError(Exception):
    """A window's metrics are not finite, or a loss explodes; nothing of it was saved."""


class Soundness:
    """Watches the windows of a run. limit: of an explosion; None for no such limit.

    A loss, a metric whose name ends so, explodes when it is further from zero than `limit` times
    the largest of the `WINDOWS` windows before, and than `limit`.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._losses: deque[float] = deque(maxlen=WINDOWS)

    @property
    def losses(self) -> list[float]:
        """The largest loss of each of the last windows: all there is to save."""
        return list(self._losses)

    def load(self, losses: Iterable[float]) -> None:
        """Goes on from what `losses` was."""
        self._losses.clear()
        self._losses.extend(losses)

    def require(self, event: StepsDone) -> None:
        """Raises DivergingError, naming the metrics, for a window that is not sound."""
        bad = {k: v for k, v in event.metrics.items() if not math.isfinite(v)}
        if bad:
            raise DivergingError(f"not finite after step {event.step}: {bad}")
        losses = {k: abs(v) for k, v in event.metrics.items() if k.endswith("loss")}
        if self._limit is not None and self._losses:
            most = self._limit * max(1.0, *self._losses)
            if bad := {k: v for k, v in losses.items() if v > most}:
                raise DivergingError(f"exploded after step {event.step}, beyond {most:g}: {bad}")
        self._losses.append(max(losses.values(), default=0.0))
