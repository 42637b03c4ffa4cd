"""What Ray Tune is told of a sweep's past, and in which order it is given trials; without Ray."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from orchestrator.sweeping.journal import Trial
from orchestrator.sweeping.tuning import Limits, Order, scheduler
from orchestrator.sweeps import SWEEPS

EVERY, STEPS = 10, 80


@dataclass(frozen=True)
class Live:
    """A trial as ASHA sees one."""

    trial_id: str


def _asha(past: dict[int, Trial]) -> TrialScheduler:
    sweep = replace(SWEEPS["sync_draw_t_k"], scheduler="asha", grace=1, eta=2)
    return scheduler(
        sweep, steps=STEPS, report_every=EVERY, past=past, explore=lambda config: config
    )


def _trial(number: int, losses: list[float], state: Any = "finished") -> Trial:
    curve = tuple((EVERY * (n + 1), {"loss": loss}) for n, loss in enumerate(losses))
    return Trial(number=number, values={}, run=f"r{number}", state=state, curve=curve)


def _told(judge: TrialScheduler, trial: Live, step: int, loss: float) -> str:
    return str(judge.on_trial_result(None, trial, {"step": step, "loss": loss}))


@pytest.mark.parametrize(("loss", "decision"), [(1.5, "CONTINUE"), (3.5, "STOP")])
def test_asha_begun_anew_judges_by_the_trials_of_the_start_before(
    loss: float, decision: str
) -> None:
    past = {n: _trial(n, [value] * 8) for n, value in enumerate([1.0, 2.0, 3.0, 4.0])}
    judge = _asha(past)
    judge.on_trial_add(None, Live("00004"))
    assert _told(judge, Live("00004"), EVERY, loss) == decision


def test_asha_does_not_judge_a_trial_again_at_a_rung_that_it_passed_before() -> None:
    past = {n: _trial(n, [value] * 8) for n, value in enumerate([1.0, 1.1, 1.2])}
    past[3] = _trial(3, [0.5], state="running")  # the best at the first rung, when it was there
    judge = _asha(past)
    judge.on_trial_add(None, Live(past[3].id))
    assert _told(judge, Live(past[3].id), EVERY, 9.0) == "CONTINUE"
    assert _told(judge, Live(past[3].id), 2 * EVERY, 9.0) == "STOP"


def test_asha_without_a_past_lets_the_first_trial_pass() -> None:
    judge = _asha({})
    judge.on_trial_add(None, Live("00000"))
    assert _told(judge, Live("00000"), EVERY, 9.0) == "CONTINUE"


class Conducting:
    """Three trials to drive, and what was said of them."""

    def __init__(self) -> None:
        self.left = [_trial(1, [2.0], "running"), _trial(2, [], "running"), _trial(3, [])]
        self.live: set[int] = set()
        self.said: list[Any] = []

    def next_trial(self) -> Trial | None:
        if not self.left:
            return None
        self.live.add(self.left[0].number)
        return self.left.pop(0)

    def on_result(self, number: int, report: Any) -> None:
        self.said.append((number, report["step"]))

    def on_over(self, number: int, why: str | None) -> None:
        self.live.discard(number)
        self.said.append(("over", number, why))


def _order(conduct: Any, room: int) -> Order:
    order = Order(conduct, lambda: room)
    order._spec = {"run": "a_trainable_of_that_name"}
    return order


def test_trials_are_given_while_there_is_room_and_from_where_they_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "orchestrator.sweeping.tuning._create_trial_from_spec",
        lambda spec, _parser, **given: (given["trial_id"], spec["config"]["told"]),
    )
    order = _order(Conducting(), 2)
    assert [order.next_trial() for _ in range(3)] == [("00001", EVERY), ("00002", 0), None]
    order.on_trial_complete("00001", {"done": True})
    assert order.next_trial() == ("00003", 0)
    order.on_trial_complete("00002", {"done": True})
    assert order.next_trial() is None
    assert not order.is_finished()  # one still runs
    order.on_trial_complete("00003", {"done": True})
    assert order.next_trial() is None
    assert order.is_finished()


@dataclass(frozen=True)
class Failed:
    """A trial of Tune's whose actor failed for the last time."""

    error_file: str
    num_failures: int = 4


def test_last_report_that_tune_tells_only_at_the_end_is_heard_and_none_twice(
    tmp_path: Path,
) -> None:
    conduct = Conducting()
    order = _order(conduct, 2)
    order._given["00002"] = Failed(str(tmp_path / "error.txt"))
    (tmp_path / "error.txt").write_text("Failure # 4\nActorDiedError: node lost\n\n")
    first, last = '{"step": 20}', '{"step": 30}'
    order.on_trial_result("00001", {"report": first})
    order.on_trial_result("00001", {"report": first})
    order.on_trial_complete("00001", {"report": last, "done": True})
    order.on_trial_complete("00002", None, error=True)
    assert conduct.said == [
        (1, 20),
        (1, 30),
        ("over", 1, None),
        ("over", 2, "its driver failed 4 times: ActorDiedError: node lost"),
    ]


def test_what_tune_pickles_holds_nothing_of_ours() -> None:
    lock = threading.RLock()  # as a terminal's live table and an S3 client have them

    def spent() -> str | None:
        with lock:
            return None

    assert len(pickle.dumps(Limits(spent))) < 200
    assert len(pickle.dumps(_order(lock, 1))) < 200
