"""Runs whose RUNS_ROOT is an S3 server: the driver is killed, the server refuses and stalls."""

import os
import random
import re

import pytest

from tests.faults.command import EVERY, STEPS
from tests.shards.s3.conftest import (  # noqa: F401 - fixtures
    Fault,
    Proxy,
    seaweed_endpoint,
    use_bucket,
)

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
pytestmark = [pytest.mark.timeout(1200), pytest.mark.parametrize("seed", SEEDS)]
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def bucket(seaweed_endpoint, monkeypatch, tmp_path):  # noqa: F811
    """A bucket of a real S3 server; what a run keeps beside it is in a home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return use_bucket(seaweed_endpoint, monkeypatch)


def _on_s3(run, bucket, **options):
    return run(environment={"RUNS_ROOT": f"s3://{bucket.name}/runs"}, **options)


@pytest.mark.nightly  # a minute and a half; a folder's run is resumed by CI, S3's store has tests
def test_driver_killed_and_resumed_from_checkpoints_on_s3(run, bucket, uninterrupted, seed):
    broken = _on_s3(run, bucket).start()
    broken.wait_for_a_moment(seed)
    broken.kill_driver()
    outcome = broken.start().finish()
    assert outcome.store.location.startswith("s3://")
    assert len(outcome.attempts) == 2
    outcome.assert_same(uninterrupted)


def test_server_refuses_and_stalls_checkpoints_which_are_written_in_the_end(
    run, bucket, uninterrupted, seed, monkeypatch
):
    refused, stalled = random.Random(seed).sample(range(EVERY, STEPS + 1, EVERY), 2)
    coming = {refused: 3 * [Fault(reply=BUSY)], stalled: [Fault(pass_bytes=0)]}

    def decide(_number, head):
        found = re.match(rb"PUT \S*/checkpoints/(\d{8})/state.pt", head)
        faults = coming.get(int(found[1])) if found else None
        return faults.pop() if faults else None

    proxy = Proxy(bucket.endpoint)
    proxy.decide = decide
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    try:
        slow = _on_s3(run, bucket)
        slow.note("moment", f"refused at {refused}, stalled at {stalled}")
        outcome = slow.start().finish()
    finally:
        proxy.close()
    assert not any(coming.values()), "every fault took place"
    assert len(outcome.attempts) == 1
    outcome.assert_same(uninterrupted)
