"""Curves written by hand: which are the same, and from where not."""

import math

import pytest

from orchestrator.sameness import same

NAN = float("nan")


def test_same_numbers_are_bit_identical_nan_too():
    curves = {"a": {1: 0.1, 2: NAN}, "b": {2: math.inf}}
    assert same(curves, {**curves, "c": {9: 1.0}}).verdict == "bit-identical"


@pytest.mark.parametrize(
    ("other", "verdict", "differs", "leaves"),
    [
        ({1: 100.0, 2: 200.1, 3: 300.0}, "within tolerance", 2, None),
        ({1: 100.0, 2: 200.1, 3: 300.3}, "different", 2, 3),
        ({1: math.nextafter(100.0, 0), 2: 200.0, 3: 300.0}, "within tolerance", 1, None),
        ({1: NAN, 2: 200.0, 3: 300.0}, "different", 1, 1),
        ({1: 100.0, 2: 200.0}, "different", None, None),
    ],
)
def test_difference_is_a_share_of_the_median_size(other, verdict, differs, leaves):
    one = {"a": {1: 100.0, 2: 200.0, 3: 300.0}}  # 1e-3 of the median is 0.2
    result = same(one, {"a": other}, tolerance=1e-3)
    assert (result.verdict, result.differs, result.leaves) == (verdict, differs, leaves)


def test_curve_that_stopped_early_is_compared_as_far_as_it_came():
    result = same({"a": {1: 1.0, 2: 2.0}}, {"a": {1: 1.0, 2: 2.0, 3: 3.0}})
    assert (result.verdict, result.last_step) == ("bit-identical", 2)


def test_metric_that_the_other_lacks_is_a_difference():
    assert same({"a": {1: 1.0}, "b": {1: 1.0}}, {"a": {1: 1.0}}).verdict == "different"


def test_runs_without_a_common_point_cannot_be_compared():
    with pytest.raises(ValueError, match="nothing can be compared"):
        same({"a": {1: 1.0}}, {"a": {2: 1.0}})
