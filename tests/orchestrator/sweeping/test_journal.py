"""A sweep's memory: what was written is what another start reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweeping.journal import Journal, Trial
from shards.storage import open_store

DEFINITION = {"sweep": {"name": "s", "space": {"optim.lr": "1,2"}}, "dataset": "v"}


def test_journal_read_by_another_start_has_every_trial_as_it_was(tmp_path: Path) -> None:
    journal = Journal(open_store(str(tmp_path)), DEFINITION)
    first = Trial(number=0, values={"optim.lr": "1"}, run="e-00000000")
    journal.write(first)
    journal.write(Trial(number=1, values={"optim.lr": "2"}, run="e-11111111"))
    changed = journal.change(
        0,
        state="stopped",
        why="asha at step 20",
        curve=((10, {"loss": 2.0}), (20, {"loss": 1.5})),
        lineage=((10, 1, {"optim.lr": "2"}),),
        seconds=3.5,
    )
    again = Journal(open_store(str(tmp_path)), DEFINITION)
    assert again.trials == {0: changed, 1: journal.trials[1]}
    assert (changed.step, changed.last("loss"), changed.last("kl")) == (20, 1.5, None)
    assert again.of_run("e-11111111") == journal.trials[1]


def test_journal_of_another_definition_is_refused_with_what_differs(tmp_path: Path) -> None:
    Journal(open_store(str(tmp_path)), DEFINITION)
    other = {**DEFINITION, "sweep": {"name": "s", "space": {"optim.lr": "1,3"}}}
    with pytest.raises(ValueError, match=r"sweep.space.optim.lr: '1,2', here '1,3'"):
        Journal(open_store(str(tmp_path)), other)
