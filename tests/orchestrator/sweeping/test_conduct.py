"""What a sweep decides, without Ray: ends, limits, failures, what a second start finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.history import STOP
from orchestrator.site import Site
from orchestrator.sweep import plan
from orchestrator.sweeping.conduct import Conduct, Report
from orchestrator.sweeping.journal import Journal, Trial
from orchestrator.sweeping.plan import Planned, facts
from shards.storage import open_store

BASE = ["data.name=squares", "data.global_batch=5", "data.block_shards=2", "model.width=2"]
STEPS = 40


def _planned(*given: str) -> Planned:
    return plan(
        "vgan_lambda",
        None,
        [*BASE, f"budget.steps={STEPS}", "resources.use_gpu=false", *given],
        Site.from_environment(),
    )


@pytest.fixture
def begin(site: Path) -> Any:
    """Begins a start of the sweep with the given overrides; (conduct, journal, what was said)."""

    def start(*given: str) -> tuple[Conduct, Journal, list[tuple[str, int]]]:
        planned = _planned(*given)
        journal = Journal(open_store(planned.site.run(planned.name)), facts(planned))
        said: list[tuple[str, int]] = []
        conduct = Conduct(planned, journal, lambda event, t: said.append((event, t.number)))
        return conduct, journal, said

    return start


def _report(trial: Trial, step: int, d_fake: float = 0.5, seconds: float = 60.0) -> Report:
    return Report(
        step=step, metrics={"d_fake": d_fake}, values=trial.values, seconds=seconds, donor=None
    )


def _driven(conduct: Conduct, count: int) -> list[Trial]:
    out = []
    for _ in range(count):
        trial = conduct.next_trial()
        assert trial is not None
        out.append(trial)
    return out


def test_trials_that_come_to_the_last_step_are_finished_and_others_stopped(begin: Any) -> None:
    conduct, journal, said = begin()
    first, second = _driven(conduct, 2)
    conduct.on_result(0, _report(first, STEPS))
    conduct.on_over(0, None)
    conduct.on_result(1, _report(second, 12))
    conduct.on_over(1, None)
    assert [journal.trials[n].state for n in (0, 1)] == ["finished", "stopped"]
    assert journal.trials[1].why == "asha at step 12"
    assert said[-1] == ("stopped", 1)
    asked = [n for n, _ in open_store(Site.from_environment().run(second.run)).list(STOP)]
    assert asked == [STOP]


def test_failing_trial_is_kept_with_its_reason_and_the_sweep_goes_on(begin: Any) -> None:
    conduct, journal, _ = begin()
    _driven(conduct, 1)
    conduct.on_over(0, "failed: the loss is not finite")
    assert journal.trials[0].state == "failed"
    assert conduct.over() is None
    assert conduct.next_trial() is not None


def test_first_three_trials_failing_end_the_sweep(begin: Any) -> None:
    conduct, _, _ = begin()
    _driven(conduct, 3)
    for number in range(3):
        conduct.on_over(number, "failed: no room")
    assert conduct.over() == "the first 3 trials all failed; the last: failed: no room"
    assert conduct.next_trial() is None
    assert conduct.verdict() == "FAILED"


def test_three_failures_after_a_finished_trial_do_not_end_the_sweep(begin: Any) -> None:
    conduct, _, _ = begin()
    trials = _driven(conduct, 4)
    conduct.on_result(0, _report(trials[0], STEPS))
    conduct.on_over(0, None)
    for number in (1, 2, 3):
        conduct.on_over(number, "failed: no room")
    assert conduct.over() is None
    assert conduct.verdict() == "FINISHED"


def test_metric_that_no_trial_reports_ends_the_sweep_with_those_it_does(begin: Any) -> None:
    conduct, _, _ = begin("sweep.objectives=d_fak:max")
    (trial,) = _driven(conduct, 1)
    conduct.on_result(0, _report(trial, 4))
    assert "trials report no 'd_fak'; did you mean 'd_fake'? Valid: d_fake" in str(conduct.over())


def test_trials_with_no_finished_one_are_a_failure_that_names_a_reason(begin: Any) -> None:
    conduct, _, _ = begin()
    _driven(conduct, 1)
    conduct.on_over(0, "failed: no room")
    assert conduct.verdict() == "FAILED"
    assert conduct.fatal == "no trial finished: failed: no room"


def test_limit_of_hours_ends_it_and_leaves_running_trials_to_the_next_start(begin: Any) -> None:
    conduct, journal, said = begin("sweep.hours=0.5")
    trials = _driven(conduct, 2)
    conduct.on_result(0, _report(trials[0], 4, seconds=1000))
    assert conduct.over() is None
    conduct.on_result(1, _report(trials[1], 4, seconds=1000))
    assert conduct.over() == "sweep.hours=0.5 is spent"
    conduct.on_over(0, None)
    assert (journal.trials[0].state, said[-1]) == ("running", ("left", 0))
    assert conduct.cost()["cost/hours"] == pytest.approx(2000 / 3600)


def test_limit_of_money_counts_gpus_by_the_machines_price(begin: Any) -> None:
    given = ["sweep.usd=13.76", "sweep.machine=8xh100", "resources.num_workers=2"]
    conduct, _, _ = begin(*given, "resources.use_gpu=true")
    (trial,) = _driven(conduct, 1)
    conduct.on_result(0, _report(trial, 4, seconds=3599))  # two GPUs of 55.04 / 8 USD an hour
    assert conduct.over() is None
    conduct.on_result(0, _report(trial, 8, seconds=1))
    assert conduct.cost()["cost/usd"] == pytest.approx(13.76)
    assert conduct.over() == "sweep.usd=13.76 is spent"


def test_second_start_suggests_what_is_left_and_never_the_same_run_twice(begin: Any) -> None:
    conduct, _, _ = begin()
    first = _driven(conduct, 3)
    conduct.on_result(1, _report(first[1], STEPS))
    conduct.on_over(1, None)
    again, journal, _ = begin()
    given = _driven(again, 7)
    assert again.next_trial() is None
    assert [trial.number for trial in given] == [0, 2, 3, 4, 5, 6, 7]
    assert [trial.starts for trial in given] == [2, 2, 1, 1, 1, 1, 1]
    assert len({trial.run for trial in journal.trials.values()}) == 8


def test_values_that_are_the_same_run_are_not_tried_twice(begin: Any) -> None:
    conduct, _, _ = begin("space.model.mask_lambda=0.1,1e-1,0.10")
    assert conduct.next_trial() is not None
    assert conduct.next_trial() is None


def test_sweep_asked_to_stop_ends_when_no_trial_runs_and_goes_on_later(begin: Any) -> None:
    conduct, journal, _ = begin()
    trials = _driven(conduct, 2)
    conduct.stop()
    for trial in trials:
        assert list(open_store(Site.from_environment().run(trial.run)).list(STOP))
    for number in (0, 1):
        assert conduct.over() is None  # another one saves
        assert conduct.next_trial() is None
        conduct.on_over(number, "stopped saved at step 4; the same command resumes it")
    assert conduct.over() == "stopped"
    assert conduct.verdict() == "KILLED"
    assert [trial.state for trial in journal.trials.values()] == ["running", "running"]


def test_pbt_takes_no_path_that_changes_shapes(site: Path) -> None:
    pbt = ["sweep.scheduler=pbt", "sweep.searcher=random", "space.model.mask_lambda=none"]
    with pytest.raises(ValueError, match=r"space.model.width: pbt gives one trial the weights"):
        _planned(*pbt, "space.model.width=2,4")


def test_pbt_explores_within_the_space(begin: Any) -> None:
    pbt = ["sweep.scheduler=pbt", "sweep.searcher=random", "space.optim.lr=log:1e-4..1e-3"]
    conduct, _, _ = begin(*pbt)
    values = {"optim.lr": "0.0009", "model.mask_lambda": "1"}
    drawn = [conduct.explore({"values": values})["values"] for _ in range(200)]
    rates = {float(each["optim.lr"]) for each in drawn}
    assert all(1e-4 <= rate <= 1e-3 for rate in rates)
    assert {1e-3, 0.0009 * 0.8} <= {round(rate, 10) for rate in rates}
    assert {"3e-1", "10"} <= {each["model.mask_lambda"] for each in drawn}
