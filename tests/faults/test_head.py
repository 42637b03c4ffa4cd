"""The head of a cluster is lost, with the driver that it ran as a submitted job.

A new head is started at the same address, and the same command is submitted again.
"""

import contextlib
import os

import psutil
import pytest

from tests.faults.cluster import DASHBOARD, RAY, Cluster, why_not

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
# Nightly: the longest of the faults, a minute and more each, since workers outlive a head by one.
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.parametrize("seed", SEEDS),
]


@pytest.fixture
def cluster(tmp_path):
    if why_not():
        pytest.skip(why_not())
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()


def _job(run, cluster, **options):
    submit = [*cluster.inside, *RAY, "job", "submit", f"--address={DASHBOARD}", "--"]
    return run(inside=submit, **options)


def test_head_lost_with_all_it_ran_and_the_same_job_again(run, cluster, uninterrupted, seed):
    job = _job(run, cluster)
    cluster.head(cpus=1, **job.settings)
    job.start().wait_for_a_moment(seed)
    cluster.kill("head")
    assert job.wait() != 0
    cluster.head(cpus=1, **job.settings)
    outcome = job.start().finish()
    assert len(outcome.attempts) == 2
    outcome.assert_same(uninterrupted)


def test_head_lost_while_the_worker_lives_on_and_the_same_job_again(
    run, cluster, uninterrupted, seed
):
    """The node takes a minute to notice; until then its worker trains on, driven by nobody.

    It is held until the new start has begun, so that both of them train at once.
    """
    job = _job(run, cluster)
    cluster.head(**job.settings)
    cluster.node("one")
    cluster.wait_for(2)
    job.start().wait_for_attempt()
    (worker,) = job.workers(cluster.processes["one"].pid)
    job.wait_for_a_moment(seed)
    worker.suspend()
    cluster.kill("head")
    assert job.wait() != 0
    cluster.head(**job.settings)
    cluster.node("two")
    cluster.wait_for(2)
    job.start().wait_for_attempt(2)
    with contextlib.suppress(psutil.NoSuchProcess):  # its node has noticed already
        worker.resume()
    outcome = job.finish()
    assert len(outcome.attempts) == 2
    assert outcome.chunks_after_the_second_began() <= 3
    outcome.assert_same(uninterrupted)
