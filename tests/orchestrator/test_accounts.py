"""A run's day, hour by hour, against sums done by hand. Seconds since 1970 begin at 1000."""

import pytest

from orchestrator.accounts import Accounts, Note


def _close(spent, **expected):
    assert {k: v for k, v in spent.items() if v} == pytest.approx(expected)


def test_accounts_first_attempt_counts_its_start_as_restart_and_the_rest_as_other():
    accounts = Accounts.resumed(started=1000, saved=None, last=None, command=1000, now=1030)
    accounts.add("compute", 60)
    accounts.add("data_wait", 5)
    note = accounts.note(1100)
    _close(note.spent, restart=30, compute=60, data_wait=5, other=5)
    shares = accounts.shares(1100)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["compute"] == pytest.approx(0.6)


def _saved_and_last():
    first = Accounts.resumed(started=1000, saved=None, last=None, command=1000, now=1030)
    first.add("compute", 60)
    saved = first.note(1100)
    first.add("compute", 40)
    first.add("collective", 10)
    return saved, first.note(1150)


def test_accounts_after_workers_died_lose_what_followed_the_checkpoint_and_nobody_idled():
    saved, last = _saved_and_last()
    second = Accounts.resumed(started=1000, saved=saved, last=last, command=1000, now=1162)
    _close(second.note(1162).spent, restart=30 + 12, compute=60, other=10, lost=50)


def test_accounts_after_the_driver_died_tell_idle_from_restart():
    saved, last = _saved_and_last()
    second = Accounts.resumed(started=1000, saved=saved, last=last, command=1950, now=1980)
    _close(second.note(1980).spent, restart=30 + 30, compute=60, other=10, lost=50, idle=800)
    second.add("compute", 20)
    third = Accounts.resumed(
        started=1000, saved=saved, last=second.note(2000), command=1950, now=2010
    )
    _close(third.note(2010).spent, restart=70, compute=60, other=10, lost=70, idle=800)


def test_accounts_without_a_later_note_go_on_from_the_checkpoint():
    saved, _ = _saved_and_last()
    second = Accounts.resumed(started=1000, saved=saved, last=None, command=1500, now=1530)
    _close(second.note(1530).spent, restart=60, compute=60, other=10, idle=400)


def test_accounts_undone_to_the_beginning_are_all_lost():
    accounts = Accounts.resumed(started=1000, saved=None, last=None, command=1000, now=1030)
    accounts.add("compute", 70)
    accounts.undo(Note(at=1030))
    _close(accounts.note(1100).spent, restart=30, lost=70)
