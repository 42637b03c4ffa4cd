"""Tasks on a real local Ray: as many as asked for, again after a death, and errors come through."""

import os
import signal
from pathlib import Path

import pytest

from shards import distribute


@pytest.fixture(scope="module")
def two_at_a_time():
    with distribute.cluster(2) as at_a_time:
        assert at_a_time() == 2
        yield at_a_time


def test_spread_gives_every_result_with_its_job(two_at_a_time):
    def square(n):
        return n * n

    found = dict(distribute.spread(square, range(20), two_at_a_time))
    assert found == {n: n * n for n in range(20)}


def test_task_whose_process_is_killed_runs_again(two_at_a_time, tmp_path):
    def dies_once(folder):
        mark = Path(folder) / "died"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    assert list(distribute.spread(dies_once, [str(tmp_path)], two_at_a_time)) == [
        (str(tmp_path), "done")
    ]
    assert (tmp_path / "died").exists()


def test_task_that_raises_ends_the_job_with_its_own_error(two_at_a_time):
    def fails(n):
        if n == 2:
            raise ValueError("spill 2 is damaged")
        return n

    with pytest.raises(ValueError, match="spill 2 is damaged"):
        list(distribute.spread(fails, range(4), two_at_a_time))


def test_no_more_tasks_run_than_asked_for(two_at_a_time, tmp_path):
    def present(folder):
        me = Path(folder) / str(os.getpid())
        me.touch()
        here = len(list(Path(folder).iterdir()))
        me.unlink()
        return here

    jobs = [str(tmp_path)] * 12
    assert max(here for _, here in distribute.spread(present, jobs, lambda: 1)) == 1
    assert max(here for _, here in distribute.spread(present, jobs, two_at_a_time)) <= 2
