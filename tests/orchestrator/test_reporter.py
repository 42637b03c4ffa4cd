import pytest

from orchestrator.loop import Spent, StepsDone
from orchestrator.reporter import SLOW_WINDOWS, Stragglers, accounted


def _window(*busy_s):
    spent = tuple(
        Spent(compute_s=busy, collective_s=0.0, data_wait_s=0.0, device_gib=0.0) for busy in busy_s
    )
    return StepsDone(step=1, steps=10, metrics={}, spent=spent)


def test_stragglers_rank_slow_for_long_is_named_with_its_host_and_not_before():
    stragglers = Stragglers(["a", "b", "c"])
    slow = _window(4.0, 4.1, 6.0)
    told = [stragglers.told(slow) for _ in range(SLOW_WINDOWS)]
    assert told[:-1] == [None] * (SLOW_WINDOWS - 1)
    assert "rank 2 on c takes 0.600 s a step, the others 0.410" in told[-1]


def test_stragglers_slow_now_and_then_or_alike_are_not_named():
    stragglers = Stragglers(["a", "b"])
    windows = [_window(4.0, 6.0), _window(4.0, 4.5)] * SLOW_WINDOWS
    assert {stragglers.told(window) for window in windows} == {None}


def _spent(compute_s, collective_s, data_wait_s):
    given = {"compute_s": compute_s, "collective_s": collective_s, "data_wait_s": data_wait_s}
    return Spent(**given, device_gib=0.0)


@pytest.mark.parametrize(
    ("others", "collective", "data_wait"),
    [
        ([_spent(5, 0, 3.5)], 1, 3.5),  # 3 s of the wait for rank 1 were its wait for data
        ([_spent(5, 0, 0.5), _spent(8, 0, 0.25)], 4, 0.5),  # rank 2 computed for long
        ([_spent(5, 0, 20)], 0, 4.5),  # no more than rank 0 waited
        ([], 4, 0.5),
    ],
)
def test_accounted_wait_for_a_worker_that_waits_for_data_is_a_wait_for_data(
    others, collective, data_wait
):
    told = accounted([_spent(5, 4, 0.5), *others])
    assert told == {"compute": 5, "collective": collective, "data_wait": data_wait}
