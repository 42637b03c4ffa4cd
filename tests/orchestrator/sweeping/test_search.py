"""Which point comes next, and that an interrupted search goes on as it would have."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from orchestrator.experiments import resolve
from orchestrator.sweeping.journal import Trial
from orchestrator.sweeping.search import Search
from orchestrator.sweeping.space import Space, parse_space
from orchestrator.sweeps import SWEEPS, Sweep

BASE = resolve("sync_draw_one_digit", "laptop", [])
SPACE = parse_space({"optim.lr": "log:1e-5..1e-1", "model.latent": "10..100"}, BASE)


def _sweep(**changes: object) -> Sweep:
    return replace(SWEEPS["sync_draw_z_hidden"], objectives="loss:min", **changes)  # type: ignore[arg-type]


def _loss(values: dict[str, str]) -> float:
    """Best at a rate of 1e-3, whatever the latent."""
    return (math.log10(float(values["optim.lr"])) + 3) ** 2


def _searched(search: Search, count: int, begun: dict[int, Trial] | None = None) -> list[Trial]:
    trials = dict(begun or {})
    while len(trials) < count:
        values = search.next(trials, lambda _: False)
        assert values is not None
        number = len(trials)
        curve = ((10, {"loss": _loss(values)}),)
        trials[number] = Trial(
            number=number, values=values, run=f"r{number}", state="finished", curve=curve
        )
    return list(trials.values())


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_search_begun_anew_from_the_journal_goes_on_as_it_would_have(searcher: str) -> None:
    sweep = _sweep(searcher=searcher)
    whole = _searched(Search(sweep, SPACE), 14)
    begun = {trial.number: trial for trial in whole[:9]}
    again = _searched(Search(sweep, SPACE), 14, begun)
    assert [trial.values for trial in again] == [trial.values for trial in whole]


def test_search_of_another_seed_draws_other_points() -> None:
    one, other = (_searched(Search(_sweep(seed=seed), SPACE), 3) for seed in (0, 1))
    assert all(a.values != b.values for a, b in zip(one, other, strict=True))


def test_tpe_gathers_where_the_loss_is_low() -> None:
    trials = _searched(Search(_sweep(searcher="tpe"), SPACE), 40)
    first = sum(_loss(trial.values) for trial in trials[:10]) / 10
    last = sum(_loss(trial.values) for trial in trials[-10:]) / 10
    assert last < first / 2


def test_search_of_two_objectives_takes_both() -> None:
    sweep = replace(SWEEPS["video_vae_kl_weight"], objectives="loss:min,kl:max")
    trials = {
        n: Trial(
            number=n,
            values={"optim.lr": repr(10.0**-n), "model.latent": "20"},
            run=f"r{n}",
            state="finished",
            curve=((10, {"loss": float(n), "kl": float(n)}),),
        )
        for n in range(2, 5)
    }
    values = Search(sweep, SPACE).next(trials, lambda _: False)
    assert values is not None
    assert values.keys() == {"optim.lr", "model.latent"}


def test_grid_passes_over_points_that_are_known_and_ends() -> None:
    space: Space = parse_space({"model.strokes": "1,2,3"}, BASE)
    search = Search(_sweep(searcher="grid"), space)
    known = [{"model.strokes": "1"}]
    assert search.size == 3
    assert search.next({}, known.__contains__) == {"model.strokes": "2"}
    known += [{"model.strokes": "2"}, {"model.strokes": "3"}]
    assert search.next({}, known.__contains__) is None


def test_search_of_a_finite_space_ends_when_all_is_known() -> None:
    space = parse_space({"model.strokes": "1,2"}, BASE)
    tried: list[dict[str, str]] = []
    search = Search(_sweep(searcher="random"), space)
    while (
        values := search.next({n: _trial(n, v) for n, v in enumerate(tried)}, tried.__contains__)
    ) is not None:
        tried.append(values)
    assert sorted(v["model.strokes"] for v in tried) == ["1", "2"]


def _trial(number: int, values: dict[str, str]) -> Trial:
    return Trial(number=number, values=values, run=f"r{number}", state="failed")
