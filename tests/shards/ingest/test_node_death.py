"""Nodes of the cluster come and go: what ran on one that dies runs again elsewhere."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from shards import distribute


@contextmanager
def head_of(cpus):
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False}
    )
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def two_nodes():
    with head_of(1) as cluster:
        yield cluster, cluster.add_node(num_cpus=1)


def test_tasks_of_a_node_that_dies_run_again_on_another(two_nodes, tmp_path):
    cluster, other = two_nodes

    def work(job):
        folder, doomed, number = job
        if ray.get_runtime_context().get_node_id() == doomed:
            (Path(folder) / f"began{number}").touch()
            time.sleep(600)
        while not list(Path(folder).glob("began*")):  # until the other node has one, too
            time.sleep(0.01)
        return number

    jobs = [(str(tmp_path), other.node_id, number) for number in range(6)]
    with distribute.cluster(None) as at_a_time:
        assert at_a_time() == 2 + distribute.AHEAD
        found = []
        for _, number in distribute.spread(work, jobs, at_a_time):
            found.append(number)
            if list(tmp_path.glob("began*")) and other in cluster.list_all_nodes():
                cluster.remove_node(other, allow_graceful=False)
        assert sorted(found) == list(range(6))
    begun = [path.name for path in tmp_path.glob("began*")]
    assert len(begun) == 1
    assert other not in cluster.list_all_nodes()


def test_cluster_without_a_cpu_is_handed_tasks_which_run_once_it_has_grown():
    """As an autoscaler sees them: it brings nodes for what waits, and for nothing else."""
    with head_of(0) as cluster, distribute.cluster(None) as at_a_time, ThreadPoolExecutor() as pool:
        assert at_a_time() == distribute.AHEAD
        found = pool.submit(list, distribute.spread(lambda number: -number, range(100), at_a_time))
        time.sleep(2)
        assert not found.done()
        cluster.add_node(num_cpus=1)
        assert dict(found.result(timeout=60)) == {number: -number for number in range(100)}
        assert at_a_time() == distribute.AHEAD + 1
