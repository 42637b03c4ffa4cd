"""What a search space may be, and what is said of one that cannot be."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.config import Experiment
from orchestrator.experiments import resolve
from orchestrator.sweeping.space import grid, parse_space


@pytest.fixture(scope="module")
def drawing() -> Experiment:
    return resolve("sync_draw_one_digit", "laptop", [])


def test_grid_of_two_lists_has_every_pair_once(drawing: Experiment) -> None:
    space = parse_space({"model.strokes": "1,2,4", "model.grid": "2,5"}, drawing)
    points = [tuple(point.values()) for point in grid(space)]
    assert points == list(itertools.product(("1", "2", "4"), ("2", "5")))


def test_grid_leaves_a_path_out_where_its_condition_is_not_met(drawing: Experiment) -> None:
    space = parse_space(
        {
            "model.language": "64,128 when model.captions=sentence",
            "model.captions": "none,sentence",
        },
        drawing,
    )
    assert list(grid(space)) == [
        {"model.captions": "none"},
        {"model.captions": "sentence", "model.language": "64"},
        {"model.captions": "sentence", "model.language": "128"},
    ]


def test_range_of_a_whole_field_gives_whole_numbers_and_of_a_rate_none(drawing: Experiment) -> None:
    latent, lr = parse_space({"model.latent": "20..200", "optim.lr": "log:1..10"}, drawing)
    assert (latent.text(37.6), lr.text(2.5)) == ("37", "2.5")
    assert lr.at(0.5) == pytest.approx(10**0.5)
    assert latent.clipped(500) == 200


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({}, "the space is empty"),
        ({"model.strkes": "1,2"}, "did you mean 'strokes'"),
        ({"model.strokes": ","}, "no values"),
        ({"model.strokes": "1,1"}, "stands there twice"),
        ({"model.strokes": "1,x"}, "must be a whole number"),
        ({"optim.lr": "2..1"}, "empty, since 2 is not below 1"),
        ({"optim.lr": "log:0..1"}, "begins above 0"),
        ({"optim.lr": "a..b"}, "two numbers"),
        ({"optim.lr": "-1..1"}, "must be greater than 0"),
        ({"model.grid": "1..9"}, "must be an integer of 2 or more"),
        ({"model.grid": "2,3 when model.captions=none"}, "depends on 'model.captions'"),
        ({"model.grid": "2,3 when model.strokes=4", "model.strokes": "1,2"}, "never, since"),
        (
            {
                "model.grid": "2,3 when model.strokes=1",
                "model.strokes": "1,2 when model.grid=2",
            },
            "depends on itself",
        ),
    ],
)
def test_space_that_cannot_be_says_why(
    drawing: Experiment, space: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        parse_space(space, drawing)


def test_grid_of_a_range_says_what_to_do(drawing: Experiment) -> None:
    space = parse_space({"optim.lr": "1e-4..1e-3"}, drawing)
    with pytest.raises(ValueError, match=r"optim.lr is a range.*sweep.searcher=random"):
        list(grid(space))
