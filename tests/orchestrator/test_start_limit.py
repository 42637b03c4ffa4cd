import pytest
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
)

from orchestrator.start_limit import bounded, told


class _Polled:
    def __init__(self, errors):
        self.errors = errors


def _start(callback, error=None):
    with callback.on_worker_group_start():
        if error is not None:
            raise error


def _died():
    error = WorkerGroupStartupFailedError("pages of a traceback")
    error.__cause__ = RuntimeError("The actor died.\n\tip: 10.0.0.7\n\tits worker is dead\n\n")
    return error


def test_starts_that_fail_on_end_are_allowed_so_often_and_then_say_what_came_before():
    callback = bounded(2)
    callback.after_worker_group_poll_status(_Polled({1: OSError(28, "No space left", "/a/b")}))
    callback.after_worker_group_poll_status(_Polled({}))
    for _ in range(2):
        with pytest.raises(WorkerGroupStartupFailedError):
            _start(callback, _died())
    with pytest.raises(RuntimeError, match="started 3 times on end") as told_last:
        _start(callback, _died())
    text = str(told_last.value)
    assert ", after they had died of rank 1: [Errno 28] No space left: '/a/b'; Ray" in text
    assert text.endswith("says: ip: 10.0.0.7 its worker is dead")


def test_starts_that_failed_before_a_good_one_are_forgotten():
    callback = bounded(1)
    for _ in range(3):
        with pytest.raises(WorkerGroupStartupFailedError):
            _start(callback, _died())
        _start(callback)


def test_starts_that_waited_for_nodes_are_not_counted():
    callback = bounded(0)
    for _ in range(3):
        with pytest.raises(WorkerGroupStartupTimeoutError):
            _start(callback, WorkerGroupStartupTimeoutError(2))


def test_told_error_without_text_is_named():
    assert told({1: ValueError("x\ny\n"), 0: KeyError()}) == "rank 0: KeyError; rank 1: y"
