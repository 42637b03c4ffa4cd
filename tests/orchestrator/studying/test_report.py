"""The tables of a study, against numbers worked out by hand or printed elsewhere."""

import csv
import io

import pytest

from orchestrator.studying.answers import Answer
from orchestrator.studying.plan import CHECK, NOISE, REAL
from orchestrator.studying.report import by_run, report, share, to_csv
from orchestrator.studying.table import as_text, side_by_side
from tests.orchestrator.studying.cases import ONE, TWO, study_value


def _answers(rater, *chosen, start=0):
    """chosen: (better, worse), or a label and its rating; the better is first every other time."""
    out = []
    for position, (one, two) in enumerate(chosen, start):
        turned = position % 2
        pair = isinstance(two, str)
        sources = ((two, one) if turned else (one, two)) if pair else (one,)
        out.append(
            Answer(
                rater=rater,
                position=position,
                is_check=NOISE in sources,
                sources=sources,
                clips=tuple(f"clip of {source}" for source in sources),
                value=turned if pair else two,
                answered_at=f"2026-01-01T00:{position // 6:02}:{position % 6 * 10:02}.000+00:00",
            )
        )
    return out


PASSED, FAILED = (CHECK, NOISE), (NOISE, CHECK)


def test_share_has_wilsons_interval_and_the_exact_two_sided_p():
    eight = share(8, 10)
    assert eight.value == 0.8
    assert (round(eight.low, 4), round(eight.high, 4)) == (0.4902, 0.9433)  # Wilson 1927, z 1.96
    assert eight.p == pytest.approx(2 * (45 + 10 + 1) / 2**10)
    none = share(0, 5)
    assert (none.low, round(none.high, 4)) == (0, 0.4345)
    assert none.p == pytest.approx(2 / 2**5)
    assert share(5, 10).p == 1
    assert share(0, 0) is None


def test_preferences_count_each_row_whichever_side_it_was_on():
    study = study_value()
    answers = [
        *_answers("a", PASSED, (ONE, TWO), (ONE, TWO), (TWO, ONE), (REAL, ONE), (REAL, TWO)),
        *_answers("b", (ONE, TWO), PASSED, (REAL, ONE), (ONE, REAL), (REAL, TWO)),
    ]
    rows = {(row.better, row.worse): row for row in report(study, answers).preferences}
    assert list(rows) == [(ONE, TWO), (ONE, REAL), (TWO, REAL)]
    parts = [(row.counted.part, row.counted.whole) for row in rows.values()]
    assert parts == [(3, 4), (1, 3), (0, 2)]
    by_one, by_two = by_run(report(study, answers)).values()
    assert by_one == {f"val/preferred_over_{TWO}": 3 / 4, "val/preferred_over_real": 1 / 3}
    assert by_two == {f"val/preferred_over_{ONE}": 1 / 4, "val/preferred_over_real": 0}


def test_rater_who_fails_checks_is_reported_and_counts_only_among_all():
    study = study_value(checks=5, trials=10)
    answers = [
        *_answers("passes", *[PASSED] * 4, FAILED, (ONE, TWO)),  # 80 % is enough
        *_answers("fails", *[PASSED] * 3, FAILED, (TWO, ONE), (TWO, ONE)),  # 75 % is not
        *_answers("unchecked", (TWO, ONE)),
    ]
    found = report(study, answers)
    assert [rater.code for rater in found.excluded] == ["fails", "unchecked"]
    row = found.preferences[0]
    assert (row.counted.part, row.counted.whole) == (1, 1)
    assert (row.everyone.part, row.everyone.whole) == (1, 4)
    text = as_text(found)
    assert "2 of 3 excluded. Rule: counted is who answered at least one attention check" in text
    assert any(line.split()[:2] == ["fails", "6"] and "NO" in line for line in text.splitlines())


def test_study_without_checks_counts_everyone():
    found = report(study_value(checks=0), _answers("a", (ONE, TWO)))
    assert not found.excluded
    assert found.preferences[0].counted.whole == 1


def test_raters_are_votes_of_their_own_and_ties_among_them_are_left_out():
    answers = [
        *_answers("a", PASSED, (ONE, TWO), (ONE, TWO), (TWO, ONE)),
        *_answers("b", PASSED, (ONE, TWO)),
        *_answers("c", PASSED, (ONE, TWO), (TWO, ONE)),
        *_answers("d", PASSED, (TWO, ONE)),
        *_answers("e", PASSED, (ONE, REAL)),
    ]
    row = report(study_value(), answers).preferences[0]
    assert (row.by_rater.part, row.by_rater.whole, row.tied) == (2, 3, 1)
    assert row.by_rater.p == 1  # 2 of 3
    assert "2:1:1" in as_text(report(study_value(), answers))


def test_first_of_two_chosen_too_often_shows():
    # _answers puts the chosen one first at even positions: one hand only takes those.
    one_handed = [
        *_answers("a", PASSED, start=0),
        *[answer for n in range(2, 22, 2) for answer in _answers("a", (ONE, TWO), start=n)],
    ]
    first = report(study_value(), one_handed).first
    assert (first.part, first.whole) == (10, 10)
    assert first.p == pytest.approx(2 / 2**10)
    assert "chosen in 100.0 % of 10 trials (72.2 to 100.0, p = 0.0020)" in as_text(
        report(study_value(), one_handed)
    )


def test_ratings_have_mean_and_sd_of_answers_and_an_interval_over_raters():
    study = study_value("rating")
    answers = [
        *_answers("a", (NOISE, 1), (ONE, 9), (ONE, 7), (REAL, 10)),
        *_answers("b", (NOISE, 3), (ONE, 6), (ONE, 6)),
        *_answers("c", (NOISE, 2), (ONE, 8), (ONE, 6), (TWO, 4)),
        *_answers("inattentive", (NOISE, 4), (ONE, 1)),
    ]
    one, two, real = report(study, answers).ratings
    assert by_run(report(study, answers)) == {ONE: {"val/rating": 7}, TWO: {"val/rating": 4}}
    assert (one.label, one.answers, one.mean) == (ONE, 6, 7)
    assert one.sd == pytest.approx((8 / 5) ** 0.5)  # squares from 7: 4, 0, 1, 1, 1, 1
    # The raters' means are 8, 6, 7: sd 1; t(0.975, 2) = 4.3027, over the root of 3.
    assert one.low == pytest.approx(7 - 4.3027 / 3**0.5, abs=1e-4)
    assert one.high == pytest.approx(7 + 4.3027 / 3**0.5, abs=1e-4)
    assert (two.mean, two.sd, two.low) == (4, None, None)
    assert real.mean == 10
    assert [rater.code for rater in report(study, answers).excluded] == ["inattentive"]


def test_pace_is_the_median_pause():
    (rater,) = report(study_value(), _answers("a", *[PASSED] * 4)).raters
    assert rater.median_s == 10
    assert report(study_value(), _answers("a", PASSED)).raters[0].median_s is None


def test_csv_holds_every_answer_with_what_was_chosen():
    study = study_value()
    answers = _answers("a", PASSED, (ONE, TWO), (REAL, TWO))
    rows = list(csv.DictReader(io.StringIO(to_csv(study, answers))))
    assert [row["chosen"] for row in rows] == [CHECK, ONE, REAL]
    assert rows[1] == {
        "study": study.id,
        "rater": "a",
        "position": "1",
        "check": "0",
        "first": TWO,
        "second": ONE,
        "first_clip": f"clip of {TWO}",
        "second_clip": f"clip of {ONE}",
        "chosen": ONE,
        "answered_at": "2026-01-01T00:00:10.000+00:00",
    }
    (rated,) = csv.DictReader(io.StringIO(to_csv(study_value("rating"), _answers("a", (ONE, 7)))))
    assert (rated["first"], rated["second"], rated["chosen"]) == (ONE, "", "7")


def test_report_without_an_answer_says_so_in_every_cell():
    for study in (study_value(), study_value("rating")):
        text = as_text(report(study, []))
        assert "0 raters, 0 answers" in text
        assert "nan" not in text
    assert report(study_value(), []).preferences[0].counted is None


def test_studies_side_by_side_are_columns_with_their_mean():
    golf, beach = study_value(seed=1), study_value(seed=2)
    text = side_by_side(
        [
            report(golf, _answers("a", PASSED, (ONE, TWO), (REAL, ONE), (REAL, TWO))),
            report(beach, _answers("b", PASSED, (ONE, TWO), (TWO, ONE), (REAL, ONE), (TWO, REAL))),
        ]
    )
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["%", "of", "trials", golf.id, beach.id, "mean"]
    assert lines[2] == ["A", "over", "B", "100", "50", "75"]
    assert lines[3] == ["A", "over", "real", "0", "0", "0"]
    assert lines[4] == ["B", "over", "real", "0", "100", "50"]
    assert f"{golf.id}: A = {ONE}, B = {TWO}" in text


def test_studies_that_do_not_compare_alike_are_refused():
    reports = [report(study_value(real=real), []) for real in (True, False)]
    with pytest.raises(ValueError, match="do not compare alike"):
        side_by_side(reports)
    with pytest.raises(ValueError, match="do not compare alike"):
        side_by_side([report(study_value("rating"), [])] * 2)


def test_stills_of_a_run_are_named_after_it_side_by_side():
    study = study_value(stills=True)
    text = side_by_side([report(study, [])] * 2)
    assert "A over still of A" in text
    assert "B over still of B" in text
