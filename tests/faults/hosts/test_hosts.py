"""Ray on hosts with a network between them, S3, MLflow and Redis on another; and what goes wrong.

A run of two workers, each on a host, is submitted to the head. Whatever happens, it has consumed
every clip of every epoch once, in the order of two workers on one machine that nothing broke, and
its weights are theirs, bit for bit.
"""

import os
import re
import time
from collections import Counter

import pytest
from mlflow import MlflowClient

from orchestrator.tracking import find_run
from tests.faults.hosts import services

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
# Nightly: a minute each, since there is one more cluster of four hosts to start for each.
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.parametrize("seed", SEEDS),
]
CLIPS, CLIP_BYTES = 40, 32 * 64 * 64 * 3  # of the dataset
HOSTS = ("one", "two")


def assert_exact(outcome, expected):
    """Every clip once in each epoch, and all as in a run that nothing broke."""
    keys = [key for step in outcome.keys for key in step]
    for begin in range(0, len(keys), CLIPS):
        epoch = Counter(keys[begin : begin + CLIPS])
        assert len(epoch) == CLIPS, "one of an epoch's clips is missing, another is twice in it"
    outcome.assert_same(expected)


def test_host_cut_off_is_replaced_and_changes_nothing_when_it_is_back(
    raylets, network, job, two, seed
):
    raylets.head()
    raylets.nodes(*HOSTS)
    broken = job().start()
    broken.wait_for_attempt()
    raylets.nodes("three")
    broken.wait_for_a_moment(seed)
    lost = HOSTS[seed % 2]
    network.cut(lost)
    broken.note("noticed after s", round(raylets.wait_without(lost, timeout_s=60), 1))
    broken.wait_for_attempt(2)
    network.mend(lost)
    outcome = broken.finish()
    assert [attempt["world_size"] for attempt in outcome.attempts] == [2, 2]
    assert outcome.chunks_after_the_second_began() <= 3
    assert_exact(outcome, two)


def test_link_slow_and_lossy_is_told_as_a_wait_for_data_and_changes_nothing(
    raylets, network, job, two, seed
):
    """Shards are kept on the host: it is the first epoch that comes through the link."""
    raylets.head()
    raylets.nodes(*HOSTS)
    bits = 4e6
    network.slow(HOSTS[seed % 2], source="services", mbit=bits / 1e6, loss=0.02)
    run = job(extra=["data.cache_gib=0.1"])
    outcome = run.start().finish()
    assert len(outcome.attempts) == 1
    assert_exact(outcome, two)
    told = metrics(run)
    epoch = CLIPS // 5
    takes_s = 2 * epoch * CLIP_BYTES * 8 / bits  # a worker has two or three of a step's five clips
    waited_s = sum(told["data/wait_s"])
    run.note("waited s", round(waited_s, 1))
    assert waited_s > takes_s / 5  # the rest may pass behind computing; a fast link's is 0.3 s
    # On rank 0's accounts as well, whichever of the two was slow.
    share = told["goodput/data_wait"][-1] / told["goodput/compute"][-1]
    assert share > 0.5 * waited_s / sum(told["sys/compute_slowest_s"])


def metrics(run):
    """{metric: its values in order of steps} as MLflow was told."""
    client = MlflowClient(services.MLFLOW)
    record = find_run(client, run.store.location.rpartition("/")[2])
    histories = {
        name: client.get_metric_history(record.info.run_id, name) for name in record.data.metrics
    }
    return {
        name: [m.value for m in sorted(h, key=lambda m: m.step)] for name, h in histories.items()
    }


@pytest.fixture
def redis():
    """A head's options to keep its state there, apart from that of every other head."""
    return {
        "RAY_REDIS_ADDRESS": services.REDIS,
        "RAY_external_storage_namespace": f"head-{time.time_ns()}",
        "password": services.REDIS_PASSWORD,
    }


def test_head_lost_with_redis_behind_it_finds_its_nodes_and_the_same_job_goes_on(
    raylets, network, job, redis, two, seed
):
    """The driver is on the head, where jobs have it, and is lost with it."""
    raylets.head(**redis)
    raylets.nodes(*HOSTS)
    before = raylets.alive()
    broken = job().start()
    broken.wait_for_a_moment(seed)
    network.remove("head")
    broken.end()  # who follows the log hears nothing any more
    raylets.head(**redis)
    raylets.wait_for(*HOSTS)
    after = raylets.alive()
    assert {name: after[name] for name in HOSTS} == {name: before[name] for name in HOSTS}
    outcome = broken.start().finish()
    assert len(outcome.attempts) == 2
    assert_exact(outcome, two)


def test_head_lost_with_redis_behind_it_is_not_missed_by_a_driver_elsewhere(
    raylets, network, job, redis, two, seed
):
    raylets.head(**redis)
    raylets.nodes(*HOSTS)
    raylets.nodes("three", offers=("--num-cpus=0", '--resources={"driver": 1}'))
    run = job(submit=("--entrypoint-resources", '{"driver": 1}')).start()
    run.wait_for_a_moment(seed)
    network.remove("head")
    run.end()
    raylets.head(**redis)
    raylets.wait_for_jobs()
    outcome = run.outcome()
    assert len(outcome.attempts) == 1
    assert_exact(outcome, two)


def test_cache_disk_full_is_said_and_the_run_goes_on_without_copies(
    raylets, network, job, two, seed
):
    raylets.head()
    raylets.nodes(*HOSTS, cache_mib=6)  # the dataset has 16
    run = job(extra=["data.cache_gib=0.1"])
    outcome = run.start().finish()
    assert len(outcome.attempts) == 1
    assert_exact(outcome, two)
    assert "does not copy now: [Errno 28] No space left on device" in run.text


def test_disk_full_ends_the_run_with_its_name_and_with_room_the_same_command_resumes_it(
    raylets, network, job, two, seed
):
    raylets.head()
    raylets.nodes(*HOSTS, disk_mib=96)
    broken = job(extra=["resources.max_failures=1"]).start()
    broken.wait_for_a_moment(seed)
    host = rank_0(broken, network)
    ballast = host.fill(host.disk)
    assert broken.wait() != 0
    last_word = broken.text.rpartition(f"{broken.store.location.rpartition('/')[2]} failed: ")[2]
    assert f"a disk of {host.name} is full: [Errno 28] No space left on device" in last_word
    host.run("rm", ballast)
    outcome = broken.start().finish()
    assert len(outcome.attempts) >= 2
    assert_exact(outcome, two)


def rank_0(run, network):
    """The host of rank 0, which keeps what MLflow is to be told."""
    said = re.compile(r"ip=(\S+)\)\S* Setting up process group .* \[rank=0")
    run.wait_for(
        lambda: said.search(run.text), "rank 0 in the log, which comes later than it starts"
    )
    ip = said.search(run.text)[1]
    return next(host for host in network.hosts.values() if host.address == ip)
