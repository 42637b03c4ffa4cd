"""Pictures of a sweep against data whose answer is known."""

import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from orchestrator.sweeping.gallery import gallery
from orchestrator.sweeping.importance import importances
from orchestrator.sweeping.plots import plots
from orchestrator.sweeping.rows import Axis, Swept, TrialRow

FILES = {"parallel_coordinates", "importance", "contour", "history", "rungs"}
KINDS = {"optim.lr": "log", "model.width": "choice", "data.fraction": "linear"}


def _row(number, metric, *, state="finished", curve=(), **values):
    return TrialRow(
        number=number,
        name=f"trial-{number:08x}",
        values={name.replace("__", "."): value for name, value in values.items()},
        metric=metric,
        state=state,
        rung=0,
        seconds=1.0,
        curve=curve,
    )


def _swept(kinds=KINDS, mode="min"):
    return Swept(kinds=kinds, metric="val/loss", mode=mode)


def _random(count, metric):
    """Trials at random places, of the metric that `metric` gives of a place."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(count):
        at = {
            "optim__lr": float(10 ** rng.uniform(-5, -1)),
            "model__width": int(rng.choice([16, 32, 64])),
            "data__fraction": float(rng.uniform()),
        }
        rows.append(_row(n, metric(at), **at))
    return rows


def _image(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def _has(picture, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(picture - wanted).sum(-1) < 6).any())


@pytest.mark.parametrize(
    ("guilty", "metric"),
    [
        ("optim.lr", lambda at: math.log10(at["optim__lr"]) ** 2),
        ("model.width", lambda at: abs(at["model__width"] - 32)),
        ("data.fraction", lambda at: 3 * at["data__fraction"]),
    ],
)
def test_importance_of_the_one_parameter_that_matters_is_nearly_all(guilty, metric):
    first, *others = importances(_random(40, metric), _swept())
    assert first.path == guilty
    assert first.share > 0.9
    assert first.sd < 0.1
    assert {each.path for each in others} == set(KINDS) - {guilty}
    assert all(each.share < 0.05 for each in others)


def test_importance_of_a_sum_is_its_terms_variances():
    """f = 3 a + b over a full factorial: variances 9 : 1, no interaction."""
    levels = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    rows = [
        _row(n, 3 * a + b, a=a, b=b) for n, (a, b) in enumerate(itertools.product(levels, levels))
    ]
    found = importances(rows, _swept({"a": "linear", "b": "linear"}))
    assert [each.path for each in found] == ["a", "b"]
    assert found[0].share == pytest.approx(0.9, abs=0.05)
    assert found[1].share == pytest.approx(0.1, abs=0.05)
    assert found == importances(rows[::-1], _swept({"a": "linear", "b": "linear"}))


def test_importance_is_less_sure_of_few_trials():
    rng = np.random.default_rng(1)
    rows = _random(60, lambda at: at["data__fraction"] + float(rng.normal(0, 0.2)))
    few, many = (
        importances(rows[:n], _swept({"data.fraction": "linear", "optim.lr": "log"}))
        for n in (8, 60)
    )
    assert few[0].sd > 2 * many[0].sd


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (_random(5, lambda _: 1.0), "too few trials: 5"),
        (_random(9, lambda _: 1.0), "the same in all 9"),
        ([_row(n, float(n), optim__lr=0.1) for n in range(8)], "no parameter differs"),
        ([_row(n, math.nan, optim__lr=0.1 * n) for n in range(8)], "too few trials: 0"),
    ],
)
def test_importance_says_why_there_is_none(rows, says):
    with pytest.raises(ValueError, match=says):
        importances(rows, _swept())


def test_axis_spaces_values_by_its_kind():
    rows = [_row(n, 1.0, optim__lr=lr) for n, lr in enumerate((1e-5, 1e-4, 1e-1))]
    log, linear, choice = (Axis("optim.lr", rows, kind) for kind in ("log", "linear", "choice"))
    assert log.at(1e-4) == pytest.approx(0.25)
    assert linear.at(1e-4) == pytest.approx((1e-4 - 1e-5) / (1e-1 - 1e-5))
    assert choice.at(1e-4) == 0.5
    assert [text for _, text in log.ticks()] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    with_zero = [*rows, _row(3, 1.0, optim__lr=0)]
    assert Axis("optim.lr", with_zero, "log").at(1e-5) == pytest.approx(1 / 3)  # a choice


def test_plots_of_any_sweep_are_pictures():
    curve = [(n, 5.0 / n) for n in range(1, 9)]
    full = _random(12, lambda at: at["data__fraction"] + at["model__width"])
    full = [_row(r.number, r.metric, curve=curve, **dict(r.values)) for r in full]
    sweeps = {
        "none": ([], KINDS),
        "failed only": ([_row(0, None, state="failed", optim__lr=0.1)], KINDS),
        "one": ([_row(0, 1.0, curve=[(1, 1.0)], optim__lr=0.1)], {"optim.lr": "log"}),
        "one parameter": (_random(7, lambda at: at["optim__lr"]), {"optim.lr": "log"}),
        "conditional": ([*full, _row(40, 2.0, optim__lr=0.1)], KINDS),
        "on a line": (
            [_row(n, float(n), a=n, b=n) for n in range(9)],
            {"a": "linear", "b": "linear"},
        ),
        "infinite": ([*full, _row(41, math.inf, curve=[(1, math.inf)], optim__lr=0.1)], KINDS),
    }
    for rows, kinds in sweeps.values():
        made = plots(rows, _swept(kinds), [4, 8])
        assert {name.removesuffix(".png") for name in made} == FILES
        assert all(_image(data).shape[1] > 500 for data in made.values())
    assert made == plots(rows, _swept(kinds), [4, 8])


def test_rungs_show_each_state_in_its_colour():
    curve = [(n, 1.0 + n) for n in range(5)]
    states = {
        "finished": "#0072b2",
        "stopped": "#e69f00",
        "failed": "#d55e00",
        "running": "#009e73",
    }
    for state in states:
        rows = [_row(0, 9.0, curve=curve), _row(1, 9.5, state=state, curve=curve[:3])]
        picture = _image(plots(rows, _swept({"a": "linear"}))["rungs.png"])
        assert {s for s, colour in states.items() if _has(picture, colour)} == {"finished", state}


def _flat(number, T=6, frames=None):
    """Clips of one colour, which tells the trial, that darken over time."""
    shade = np.arange(T, dtype=np.uint8)[None, :, None, None, None]
    colour = np.array([200, 20 * number, 100], np.uint8)
    return np.broadcast_to(colour - shade * 10, (4, T, 16, 16, 3)).astype(np.uint8)


def _centre(picture, number):
    """Where the first frames of a trial's clips are: (row, column), the mean of their pixels."""
    found = np.argwhere((picture == [200, 20 * number, 100]).all(-1))
    return found.mean(0)


def test_gallery_orders_trials_along_the_parameter():
    lambdas = {0: 10.0, 1: 0.0, 2: 1e-3, 3: 1.0}
    rows = [_row(n, 1.0, model__mask_lambda=value) for n, value in lambdas.items()]
    still, _ = gallery(
        [(row, _flat(row.number)) for row in rows], _swept({"model.mask_lambda": "choice"})
    )
    heights = {n: _centre(_image(still), n)[0] for n in lambdas}
    assert sorted(heights, key=heights.get) == [1, 2, 3, 0]


def test_gallery_of_two_parameters_is_a_grid():
    pairs = list(itertools.product([4, 8], [3, 5, 9]))
    rows = [_row(n, 1.0, model__strokes=T, model__window=K) for n, (T, K) in enumerate(pairs)]
    sheets = [(row, _flat(row.number)) for row in rows[::-1][1:]]  # one is still to come
    still, _ = gallery(sheets, _swept({"model.strokes": "choice", "model.window": "choice"}))
    at = {n: _centre(_image(still), n) for n in range(5)}
    assert at[0][0] == at[1][0] == at[2][0] < at[3][0] == at[4][0]
    assert at[0][1] == at[3][1] < at[1][1] == at[4][1] < at[2][1]


def test_gallery_moves_in_the_gif_as_the_clips_do():
    rows = [_row(n, float(n), a=n) for n in range(2)]
    _, moving = gallery([(row, _flat(row.number)) for row in rows], _swept({"a": "linear"}), fps=20)
    image = Image.open(io.BytesIO(moving))
    assert (image.n_frames, image.info["duration"]) == (6, 50)
    reds = []
    for frame in range(image.n_frames):
        image.seek(frame)
        picture = np.asarray(image.convert("RGB")).astype(int)
        clips = picture[(np.abs(picture[..., 2] - picture[..., 0] + 100) < 3)]
        reds.append(clips[:, 0].mean())
    assert np.diff(reds) == pytest.approx([-10] * 5, abs=1)


def test_gallery_refuses_nothing_and_clips_of_two_shapes():
    with pytest.raises(ValueError, match="at least one"):
        gallery([], _swept())
    rows = [_row(n, 1.0, a=n) for n in range(2)]
    with pytest.raises(ValueError, match="one shape"):
        gallery([(rows[0], _flat(0)), (rows[1], _flat(1, T=4))], _swept({"a": "linear"}))


def test_gallery_of_many_trials_stays_small():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (4, 32, 64, 64, 3), np.uint8)
    rows = [_row(n, float(n), a=n) for n in range(60)]
    still, moving = gallery([(row, noise) for row in rows], _swept({"a": "linear"}))
    assert len(still) < 8e6
    assert len(moving) < 16e6  # of noise, the worst there is
