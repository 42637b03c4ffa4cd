"""Whether two runs' curves are the same: bit for bit, within a tolerance, or not, and from where.

A curve is {step: value}. Two values are equal bit for bit when they are the same number, or both
are NaN. They are within the tolerance when they differ by at most that share of the curve's own
typical size, the median of the first curve's absolute values: a share of each value would demand
the most where a curve crosses zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Curve = Mapping[int, float]
Verdict = Literal["bit-identical", "within tolerance", "different"]
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How two curves of one metric compare.

    points: steps that both have; missing: steps of the first that the second lacks. largest: the
    largest difference, as a share of the curve's size. differs, leaves: the first step that is not
    equal bit for bit, and the first outside of the tolerance; None where there is none.
    """

    name: str
    points: int
    missing: int
    largest: float
    differs: int | None
    leaves: int | None


@dataclass(frozen=True, kw_only=True)
class Sameness:
    """How all curves compare. last_step: up to which."""

    verdict: Verdict
    tolerance: float
    last_step: int
    metrics: tuple[Metric, ...]

    @property
    def differs(self) -> int | None:
        """The first step at which a metric is not equal bit for bit."""
        return min((m.differs for m in self.metrics if m.differs is not None), default=None)

    @property
    def leaves(self) -> int | None:
        """The first step at which a metric is outside of the tolerance."""
        return min((m.leaves for m in self.metrics if m.leaves is not None), default=None)

    def plain(self) -> dict[str, Any]:
        """As JSON-able data."""
        steps = {"first_step_that_differs": self.differs, "first_step_outside": self.leaves}
        return asdict(self) | steps


def same(
    one: Mapping[str, Curve], other: Mapping[str, Curve], *, tolerance: float = TOLERANCE
) -> Sameness:
    """Compares the curves of `one`, up to its last step, with those of `other`.

    Raises ValueError when the two have no metric and step in common.
    """
    metrics = tuple(
        _metric(name, one[name], other.get(name, {}), tolerance) for name in sorted(one)
    )
    if not any(metric.points for metric in metrics):
        raise ValueError("the two runs have no metric of the same step: nothing can be compared")
    if any(metric.missing or metric.leaves is not None for metric in metrics):
        verdict: Verdict = "different"
    elif any(metric.differs is not None for metric in metrics):
        verdict = "within tolerance"
    else:
        verdict = "bit-identical"
    last = max(max(curve) for curve in one.values() if curve)
    return Sameness(verdict=verdict, tolerance=tolerance, last_step=last, metrics=metrics)


def _metric(name: str, one: Curve, other: Curve, tolerance: float) -> Metric:
    steps = sorted(one.keys() & other.keys())
    finite = [abs(value) for value in one.values() if math.isfinite(value)]
    size = median(finite) if finite else 0.0
    shares = {step: _share(one[step], other[step], size) for step in steps}
    return Metric(
        name=name,
        points=len(steps),
        missing=len(one.keys() - other.keys()),
        largest=max(shares.values(), default=0.0),
        differs=next((step for step in steps if shares[step] > 0), None),
        leaves=next((step for step in steps if shares[step] > tolerance), None),
    )


def _share(one: float, other: float, size: float) -> float:
    """The difference as a share of `size`; 0 for the same number alone."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    difference = abs(one - other)
    return difference / size if math.isfinite(difference) and size else math.inf
