"""A node of the cluster dies in the middle: what ran on it runs again elsewhere."""

import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from shards import distribute


@pytest.fixture
def two_nodes():
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        other = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster, other
    finally:
        ray.shutdown()
        cluster.shutdown()


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
        assert at_a_time == 2
        found = []
        for _, number in distribute.spread(work, jobs, at_a_time):
            found.append(number)
            if list(tmp_path.glob("began*")) and other in cluster.list_all_nodes():
                cluster.remove_node(other, allow_graceful=False)
        assert sorted(found) == list(range(6))
    begun = [path.name for path in tmp_path.glob("began*")]
    assert len(begun) == 1
    assert other not in cluster.list_all_nodes()
