from orchestrator.loop import Spent, StepsDone
from orchestrator.reporter import SLOW_WINDOWS, Stragglers


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
