"""Curves of few points against the histories that they stand for."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.comparing.curves import (
    POINTS,
    SCREEN,
    band_of,
    column_width,
    columns_of,
    metric_curves,
    packed,
    path_of,
)

histories = st.lists(
    st.tuples(st.integers(0, 5000), st.floats(-1e6, 1e6)),
    min_size=1,
    max_size=200,
    unique_by=lambda p: p[0],
).map(sorted)


def _columns(points, width):
    steps, values = (np.array(each) for each in zip(*points, strict=True))
    return columns_of(steps, values.astype(float), width)


@given(histories, st.integers(1, 900))
def test_columns_hold_each_intervals_extremes_and_mean(points, width):
    by_column = {}
    for step, value in points:
        by_column.setdefault(step // width, []).append((step, value))
    found = _columns(points, width)
    assert len(found.first) == len(by_column)
    for n, inside in enumerate(by_column.values()):
        values = [value for _, value in inside]
        assert (found.first[n], found.last[n]) == (inside[0][0], inside[-1][0])
        assert (found.low[n], found.high[n]) == (min(values), max(values))
        assert found.mean[n] == pytest.approx(sum(values) / len(values), abs=1e-6)


@given(histories, st.integers(1, 900))
def test_fine_curve_goes_through_every_columns_extremes_and_nothing_else(points, width):
    path = path_of(_columns(points, width), coarse=False)
    assert set(path.values) <= {value for _, value in points}
    assert (np.diff(path.steps) >= 0).all()
    for column in {step // width for step, _ in points}:
        truth = [value for step, value in points if step // width == column]
        drawn = path.values[path.steps // width == column]
        assert (min(drawn), max(drawn)) == (min(truth), max(truth))


@given(histories)
def test_curve_of_columns_with_one_point_is_the_history(points):
    path = path_of(_columns(points, 1), coarse=True)
    assert list(zip(path.steps, path.values, strict=True)) == points


@pytest.mark.parametrize("spike", [900.0, -900.0])
def test_coarse_curve_is_smooth_and_keeps_a_spike(spike):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 10_000)
    values[4321] = spike
    path = path_of(columns_of(np.arange(10_000), values, 250), coarse=True)
    assert spike in path.values
    assert 40 <= len(path.values) <= 44
    assert np.median(np.abs(path.values)) < 0.1  # means of 250, not extremes


def test_values_that_are_not_finite_are_left_out():
    values = np.array([1.0, np.nan, np.inf, 4.0])
    assert list(columns_of(np.arange(4), values, 2).mean) == [1, 4]
    assert len(columns_of(np.arange(2), values[1:3], 2).mean) == 0


@pytest.mark.parametrize("curves", [1, 30, 61, 400, 1000, 1400])
def test_columns_fit_the_page_however_many_curves(curves):
    width, coarse = column_width(99_999, curves)
    columns = -(-100_000 // width)
    assert columns * curves * (1 if coarse else 2) <= POINTS * 1.1
    assert columns <= SCREEN


def test_band_is_mean_and_deviation_as_far_as_all_have_come():
    steps = np.array([10, 20, 30])
    one, other = (
        columns_of(steps, np.array([1.0, 2, 3]), 1),
        columns_of(steps[:2], np.array([3.0, 6]), 1),
    )
    band = band_of([one, other], 1)
    assert (list(band.steps), list(band.mean)) == ([10, 20], [2, 4])
    assert list(band.sd) == pytest.approx([2**0.5, 8**0.5])
    curves = metric_curves("m", {0: one, 4: other}, 1, False, [[0, 4], [1]])
    assert set(curves.bands) == {0}
    assert curves.exact


def test_packed_arrays_are_float32_in_a_row():
    told = packed([np.array([1.0, 2.5]), np.array([]), np.array([-3.0])])
    assert told["lengths"] == [2, 0, 1]
    assert list(np.frombuffer(base64.b64decode(told["float32"]), "<f4")) == [1, 2.5, -3]
