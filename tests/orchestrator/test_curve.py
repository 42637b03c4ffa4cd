"""Figure 4b and 4c from made-up results whose means and spreads are worked out by hand."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from orchestrator.curve import Result, curve_of
from orchestrator.figures import accuracy_curve


def _results(mode, accuracies, begun=None):
    """accuracies: {fraction: one a seed}."""
    return [
        Result(
            run=f"{mode}-{begun}-{fraction}-{seed}",
            mode=mode,
            begun=begun,
            fraction=fraction,
            seed=seed,
            accuracy=accuracy,
            chance=0.25,
        )
        for fraction, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]


FINETUNED = _results("finetune", {1.0: [0.8, 0.9, 1.0], 0.25: [0.6, 0.6, 0.6]}, "vgan_unfiltered")
RANDOM = _results("random", {0.125: [0.4], 0.25: [0.2, 0.4], 1.0: [0.75, 0.75, 0.75]})


def _numbers(points):
    return np.array([(point.fraction, point.mean, point.std) for point in points])


def test_curve_has_a_point_per_share_with_the_seeds_spread():
    curve = curve_of([*RANDOM, *FINETUNED])
    assert [series.label for series in curve.series] == ["fine-tuned", "random initialisation"]
    finetuned, random = (_numbers(series.points) for series in curve.series)
    assert finetuned == pytest.approx(np.array([[0.25, 0.6, 0], [1, 0.9, 0.1]]))
    spread = math.sqrt(0.02)
    assert random == pytest.approx(np.array([[0.125, 0.4, 0], [0.25, 0.3, spread], [1, 0.75, 0]]))
    assert len(curve.series[0].points[1].runs) == 3
    assert json.loads(json.dumps(curve.plain()))["chance"] == 0.25


def test_curve_gain_is_the_ratio_with_both_spreads_where_both_are():
    gain = curve_of([*RANDOM, *FINETUNED]).gain
    spreads = 2 * math.sqrt(0.02) / 0.3, 1.2 * 0.1 / 0.9
    assert _numbers(gain) == pytest.approx(np.array([[0.25, 2, spreads[0]], [1, 1.2, spreads[1]]]))


def test_curve_of_one_way_to_train_has_no_gain():
    assert curve_of(RANDOM).gain == ()


def test_curve_tells_what_was_begun_from_where_that_differs():
    other = _results("finetune", {1.0: [0.5]}, "vgan_golf")
    labels = [series.label for series in curve_of([*FINETUNED, *other]).series]
    assert labels == ["fine-tuned from vgan_golf", "fine-tuned from vgan_unfiltered"]


def test_curve_of_no_run_or_one_twice_is_refused():
    with pytest.raises(ValueError, match="give the runs of classifiers"):
        curve_of([])
    with pytest.raises(ValueError, match=r"random-None-0\.125-0 is given twice"):
        curve_of([*RANDOM, RANDOM[0]])


def _picture(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_accuracy_curve_draws_each_series_and_the_gain_beside():
    both, alone = curve_of([*RANDOM, *FINETUNED]), curve_of(RANDOM)
    wide, narrow = _picture(accuracy_curve(both)), _picture(accuracy_curve(alone))
    assert wide.shape[1] == 2 * narrow.shape[1]
    blue, red = ((np.abs(wide - colour).max(-1) < 12) for colour in ((0, 114, 178), (213, 94, 0)))
    assert blue[:, : wide.shape[1] // 2].sum() > 300
    assert blue[:, wide.shape[1] // 2 :].sum() > 300
    assert red[:, : wide.shape[1] // 2].sum() > 300
    assert accuracy_curve(both) == accuracy_curve(curve_of([*FINETUNED, *RANDOM]))
