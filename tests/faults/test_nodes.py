"""A cluster of a head and two nodes, each a raylet of its own; a node is lost, or is taken away.

All of it, the driver too, lives in a network namespace that has nothing but its own loopback.

The run is elastic over 1..2 workers. The ledger is that of the uninterrupted run whatever the world
size; weights are not compared bit for bit, because batch statistics are of each worker's slice.
"""

import os
import random

import pytest

from tests.faults.cluster import Cluster, why_not

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
pytestmark = [pytest.mark.timeout(1200), pytest.mark.parametrize("seed", SEEDS)]


@pytest.fixture
def cluster(tmp_path):
    if why_not():
        pytest.skip(why_not())
    made = Cluster(tmp_path)
    try:
        made.head()
        made.node("one")
        made.wait_for(2)  # two at once, on one address, would take each other's ports
        made.node("two")
        made.wait_for(3)
        yield made
    finally:
        made.close()


def _elastic(run, cluster, **options):
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    return run(workers="1..2", environment=environment, inside=cluster.inside, **options).start()


def test_node_lost_goes_on_with_the_rest_and_consumes_the_same_keys(
    run, cluster, uninterrupted, seed
):
    broken = _elastic(run, cluster)
    broken.wait_for_attempt()
    names = [n for n in ("one", "two") if broken.workers(cluster.processes[n].pid)]
    lost = random.Random(seed).choice(names)
    broken.wait_for_a_moment(seed)
    cluster.kill(lost)
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    assert outcome.attempts[1]["world_size"] == 1
    outcome.assert_same(uninterrupted, weights=False)


@pytest.mark.nightly  # a cluster and a minute more: CI's time is 25 minutes
def test_node_taken_away_with_notice_loses_no_step(run, cluster, uninterrupted, seed):
    ids = sorted(node["node_id"] for node in cluster.nodes() if not node["is_head_node"])
    give_notice = cluster.notice()
    broken = _elastic(run, cluster, extra=["budget.checkpoint_every=64", "budget.samples_every=8"])
    broken.wait_for_a_moment_without_checkpoints(seed)
    give_notice(random.Random(seed).choice(ids))
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    assert outcome.attempts[1]["first_step"] > 0, "saved before it left"
    assert broken.steps_lost(outcome) == 0
    outcome.assert_same(uninterrupted, weights=False)
