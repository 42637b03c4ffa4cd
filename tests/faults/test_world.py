"""The world size changes nothing but rounding, with batch statistics of the global batch.

Held against one worker's weights, through Ray and gloo. Adam's eps is 10 here, so that a step is
proportional to its gradient: with the usual 1e-8 a first step is the learning rate times the
gradient's sign, and where a gradient is nothing but rounding (a bias before batch norm) two ways to
round are two learning rates apart, in one worker as well. Measured after these 64 steps, the
largest difference of any weight or running statistic: 1.2e-5 between 1 and 2 workers, 2.6e-5
between torch's batch norm and ours in one worker (rounding alone), 6.7e-3 between 1 and 2 workers
without synchronisation. The tolerance lies between.
"""

import os

import pytest

from tests.faults.cluster import Cluster, why_not

SEEDS = pytest.mark.parametrize("seed", range(int(os.environ.get("FAULT_SEEDS", "1"))))
pytestmark = pytest.mark.timeout(1200)
GENTLE = ["optim.eps=10", "optim.lr=1e-3"]
SYNCHRONISED = [*GENTLE, "resources.sync_batch_norm=true"]
TOLERANCE = 2e-4


@pytest.fixture(scope="session")
def alone(once):
    """One worker's outcome."""
    return once("alone", extra=SYNCHRONISED)


@pytest.mark.nightly  # two minutes with its baseline; slices and sums have tests in test_parallel
@SEEDS
def test_two_workers_killed_and_gone_on_with_as_one_differ_by_rounding(run, alone, seed):
    broken = run(workers="2", extra=SYNCHRONISED).start()
    broken.wait_for_a_moment(seed)
    broken.kill_driver()
    broken.workers_asked = "1"
    outcome = broken.start().finish()
    assert [attempt["world_size"] for attempt in outcome.attempts] == [2, 1]
    outcome.assert_same(alone, weights=False)
    broken.note("distance", outcome.distance(alone))
    assert outcome.distance(alone) < TOLERANCE


@SEEDS
@pytest.mark.nightly  # three workers share two cores, and there are three starts of a cluster
def test_one_worker_killed_and_gone_on_with_as_three_differ_by_rounding(run, alone, seed, tmp_path):
    if why_not():
        pytest.skip(why_not())
    cluster = Cluster(tmp_path)
    try:
        cluster.head(cpus=3)  # Ray counts, and does not look at, the cores
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        broken = run(extra=SYNCHRONISED, environment=environment, inside=cluster.inside).start()
        broken.wait_for_a_moment(seed)
        broken.process.kill()
        broken.process.wait()
        broken.workers_asked = "3"
        outcome = broken.start().finish()
    finally:
        cluster.close()
    assert [attempt["world_size"] for attempt in outcome.attempts] == [1, 3]
    outcome.assert_same(alone, weights=False)
    broken.note("distance", outcome.distance(alone))
    assert outcome.distance(alone) < TOLERANCE


@pytest.mark.nightly  # the control of the tolerance: once in a while is enough
def test_two_workers_without_synchronisation_differ_by_far_more(run, once):
    one = once("alone-unsynchronised", extra=GENTLE)
    two = run(workers="2", extra=GENTLE).start().finish()
    assert two.distance(one) > 10 * TOLERANCE
