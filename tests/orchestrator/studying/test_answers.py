"""Answers in SQLite: none lost, none doubled, whoever asks and whenever it ends."""

import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.studying.answers import Answers, RefusedError
from orchestrator.studying.plan import trials_of
from tests.orchestrator.studying.cases import clip_names, make_study, study_value


@pytest.fixture
def answers(tmp_path):
    opened = make_study(tmp_path / "study", study_value(trials=6, checks=1))
    yield opened
    opened.close()


def _joined(answers):
    rater = answers.rater(answers.join(most=100))
    assert rater is not None
    return rater


def test_rater_is_shown_the_trials_that_the_plan_says_in_order(answers):
    _joined(answers)
    rater = _joined(answers)
    planned = trials_of(answers.study, clip_names(answers.study), 2)
    for position, trial in enumerate(planned):
        standing = answers.standing(rater)
        assert (standing.done, standing.shown) == (position, trial.shown)
        following = planned[position + 1].shown if position + 1 < len(planned) else ()
        assert standing.coming == following
        assert answers.answer(rater, position, position % 2)
    assert answers.standing(rater).shown == ()
    stored = answers.all()
    assert [(a.position, a.value) for a in stored] == [(n, n % 2) for n in range(7)]
    assert [a.clips for a in stored] == [trial.shown for trial in planned]
    assert [a.is_check for a in stored] == [trial.is_check for trial in planned]


def test_answer_given_again_changes_nothing_and_another_one_is_refused(answers):
    rater = _joined(answers)
    assert answers.answer(rater, 0, 1) is True
    before = answers.all()
    assert answers.answer(rater, 0, 1) is False
    with pytest.raises(RefusedError, match="trial 0 has another answer, which stands"):
        answers.answer(rater, 0, 0)
    assert answers.all() == before


def test_answer_ahead_of_its_turn_is_refused(answers):
    rater = _joined(answers)
    with pytest.raises(RefusedError, match="trial 2 is not to be answered before 0"):
        answers.answer(rater, 2, 0)
    assert answers.all() == []


@pytest.mark.parametrize(
    ("position", "value"), [(-1, 0), (7, 0), (10**30, 0), (0, 2), (0, -1), (0, 10**30)]
)
def test_answer_to_no_trial_or_of_no_choice_is_wrong(answers, position, value):
    with pytest.raises(ValueError, match=r"there is no trial|must be from 0 to 1"):
        answers.answer(_joined(answers), position, value)
    assert answers.all() == []


def test_rating_takes_1_to_10_and_nothing_else(tmp_path):
    answers = make_study(tmp_path / "study", study_value("rating", trials=10, checks=0))
    rater = _joined(answers)
    for value in (0, 11):
        with pytest.raises(ValueError, match=f"value: {value} must be from 1 to 10"):
            answers.answer(rater, 0, value)
    for position in range(10):
        answers.answer(rater, position, position + 1)
    assert [answer.value for answer in answers.all()] == list(range(1, 11))
    answers.close()


def test_raters_that_hurry_retry_and_jump_at_once_leave_one_answer_a_trial(answers):
    """Eight threads send all answers of two raters, twice and in random order, until they stand;
    every other one through a connection that knows nothing of the first, as a second process."""
    other = Answers(answers.folder)
    raters = [_joined(answers), _joined(answers)]
    length = answers.study.length

    def hammer(seed):
        rng = random.Random(seed)
        stored = 0
        todo = [(rater, n) for rater in raters for n in range(length)] * 2
        while todo:
            rater, position = todo.pop(rng.randrange(len(todo)))
            try:
                stored += (answers, other)[seed % 2].answer(rater, position, position % 2)
            except RefusedError:
                todo.append((rater, position))
        return stored

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hammer, range(8))) == 2 * length
    other.close()
    found = [(answer.rater, answer.position, answer.value) for answer in answers.all()]
    assert found == [(code, n, n % 2) for code in answers.raters() for n in range(length)]


def test_two_processes_serve_one_study(tmp_path, answers):
    other = Answers(answers.folder)
    rater = _joined(answers)
    for position in range(answers.study.length):
        assert (answers, other)[position % 2].answer(rater, position, 1) is True
        assert (other, answers)[position % 2].answer(rater, position, 1) is False
    assert _joined(other) == 2
    assert other.all() == answers.all()
    other.close()


def test_confirmed_answer_survives_a_kill(tmp_path):
    make_study(tmp_path / "study", study_value(trials=6, checks=0)).close()
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from orchestrator.studying.answers import Answers; a = Answers(Path(sys.argv[1]));"
        "r = a.rater(a.join(9)); a.answer(r, 0, 1); a.answer(r, 1, 0);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "study")], timeout=60)
    assert done.returncode == -signal.SIGKILL
    answers = Answers(tmp_path / "study")
    assert [(a.position, a.value) for a in answers.all()] == [(0, 1), (1, 0)]
    assert answers.standing(1).done == 2
    answers.close()


def test_keys_are_secret_and_of_one_rater(tmp_path, answers):
    keys = [answers.join(most=100) for _ in range(3)]
    assert [answers.rater(key) for key in keys] == [1, 2, 3]
    assert answers.rater("x" * 32) is None
    for file in answers.folder.glob("study.db*"):
        assert not any(key.encode() in file.read_bytes() for key in keys)


def test_joining_a_full_study_is_refused(answers):
    answers.join(most=1)
    with pytest.raises(RefusedError, match="all the raters that it wants"):
        answers.join(most=1)
    assert len(answers.raters()) == 1
