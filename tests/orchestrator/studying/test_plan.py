"""What a study compares, and what every rater is shown of it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.studying.plan import NOISE, Study, compared, trials_of
from tests.orchestrator.studying.cases import ONE, TWO, clip_names, study_value


def _source_of(study, **size):
    return {name: label for label, names in clip_names(study, **size).items() for name in names}


def test_comparisons_of_three_runs_and_real_are_the_rows_of_table_1():
    names = ["two-stream", "one-stream", "autoencoder", "real"]
    assert [(names[a], names[b]) for a, b in compared(3, real=True, stills=False)] == [
        ("two-stream", "one-stream"),
        ("two-stream", "autoencoder"),
        ("one-stream", "autoencoder"),
        ("two-stream", "real"),
        ("one-stream", "real"),
        ("autoencoder", "real"),
    ]
    assert compared(2, real=False, stills=True) == ((0, 1), (0, 2), (1, 3))
    assert compared(1, real=True, stills=True) == ((0, 1), (0, 2))


@given(
    rater=st.integers(1, 1000),
    trials=st.integers(5, 60),
    checks=st.integers(0, 5),
    real=st.booleans(),
    stills=st.booleans(),
)
def test_trials_of_a_rater_are_balanced_in_rows_and_sides(rater, trials, checks, real, stills):
    study = study_value(trials=trials, checks=checks, real=real, stills=stills, clips=60)
    source_of = _source_of(study)
    shown = trials_of(study, clip_names(study), rater)
    sides = [tuple(source_of[name] for name in trial.shown) for trial in shown]
    asked = [pair for pair, trial in zip(sides, shown, strict=True) if not trial.is_check]
    assert (len(asked), len(shown)) == (trials, trials + checks)
    labels = [source.label for source in study.sources]
    rows = [frozenset((labels[a], labels[b])) for a, b in study.comparisons]
    times = Counter(map(frozenset, asked))
    assert set(times) == set(rows)
    assert max(times.values()) - min(times.values()) <= 1
    for row in rows:
        first, second = row
        ahead = Counter(asked)
        assert abs(ahead[first, second] - ahead[second, first]) <= 1
    clips = [name for trial in shown for name in trial.shown]
    drawn = Counter(name for name in clips if source_of[name] in labels)
    assert max(drawn.values()) == 1  # 60 of each, and none is needed more often
    noisy = [NOISE in pair for pair in sides]
    assert noisy == [trial.is_check for trial in shown]


def test_clips_come_again_only_when_their_source_is_used_up():
    study = study_value(trials=30, checks=0, real=False, clips=7)
    shown = trials_of(study, clip_names(study), 1)
    times = Counter(name for trial in shown for name in trial.shown)
    assert sorted(times.values()) == [4] * 10 + [5] * 4  # 30 of 7 clips, for both runs


def test_trials_are_a_function_of_seed_and_rater():
    study = study_value(trials=30)
    names = clip_names(study)
    assert trials_of(study, names, 3) == trials_of(study, names, 3)
    others = [trials_of(study, names, 4), trials_of(study_value(trials=30, seed=1), names, 3)]
    assert all(other != trials_of(study, names, 3) for other in others)


@given(rater=st.integers(1, 200))
def test_checks_come_one_to_each_part_of_the_trials(rater):
    study = study_value(trials=40, checks=5, clips=64)
    shown = trials_of(study, clip_names(study), rater)
    at = [place for place, trial in enumerate(shown) if trial.is_check]
    assert [(place - n) // 8 for n, place in enumerate(at)] == [0, 1, 2, 3, 4]


def test_checks_are_not_always_at_one_place_nor_on_one_side():
    study = study_value(trials=40, checks=5, clips=64)
    source_of = _source_of(study)
    firsts, sides = set(), Counter()
    for rater in range(30):
        shown = trials_of(study, clip_names(study), rater)
        firsts.add(next(n for n, trial in enumerate(shown) if trial.is_check))
        sides.update(source_of[t.shown[0]] == NOISE for t in shown if t.is_check)
    assert len(firsts) == 8
    assert 60 <= sides[True] <= 90


def test_rating_shows_one_clip_at_a_time_of_every_source_equally_often():
    study = study_value("rating", trials=30, checks=3)
    source_of = _source_of(study)
    shown = trials_of(study, clip_names(study), 1)
    assert {len(trial.shown) for trial in shown} == {1}
    times = Counter(source_of[trial.shown[0]] for trial in shown)
    assert times == {ONE: 10, TWO: 10, "real": 10, NOISE: 3}


def test_id_is_that_of_the_whole_value_and_survives_json():
    study = study_value()
    assert Study.from_json(study.to_json()) == study
    others = [
        study_value("rating"),
        study_value(trials=13),
        study_value(checks=1),
        study_value(real=False),
        study_value(clips=9),
        study_value(seed=1),
    ]
    assert len({each.id for each in [study, *others]}) == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trials": 2}, "--pairs=2: must be from 3, one for every row of the table, to 1000"),
        ({"trials": 1001}, "--pairs=1001: must be from 3"),
        ({"checks": 13}, "--checks=13: must be from 0 to --pairs"),
        ({"clips": 0}, "--clips=0: must be from 1 to 1000"),
        ({"seed": -1}, "--seed=-1: must be"),
    ],
)
def test_wrong_field_is_named_with_what_is_valid(fields, message):
    with pytest.raises(ValueError, match=message):
        study_value(**fields)
