"""Placement groups that nobody uses any more: found by their run's name, and freed."""

import time

import pytest
import ray
from ray.util import placement_group

from orchestrator.claims import Reaper, claimed, name, release


@pytest.fixture(scope="module")
def cluster():
    """Ray in this process, without a dashboard: Ray Train's own cleaner would not work here."""
    ray.init(
        address="local",
        num_cpus=5,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def _hold(full_name):
    group = placement_group([{"CPU": 1}], name=full_name)
    ray.get(group.ready())


def test_release_frees_the_groups_of_the_runs_named_and_no_others(cluster):
    for full_name in (name("mine"), name("mine"), name("other"), "run:another-job:mine:1"):
        _hold(full_name)  # twice: the second is of the controller that follows one that was killed
    assert {run: len(ids) for run, ids in claimed().items()} == {"mine": 2, "other": 1}
    assert release({"mine", "unheard-of"}) == ["mine"]
    assert claimed().keys() == {"other"}
    for _ in range(3):  # their CPUs are free again
        _hold(name("mine"))
    release({"mine", "other"})


def test_reaper_frees_what_a_run_that_is_over_holds_only_after_a_while(cluster):
    for run in ("over", "live"):
        _hold(name(run))
    said = []
    reaper = Reaper(lambda: {"over"}, said.append, after_s=3)
    began = time.monotonic()
    while "over" in claimed():
        assert time.monotonic() < began + 60
    assert time.monotonic() > began + 3
    reaper.close()
    assert claimed().keys() == {"live"}
    assert said == ["freed the placement group that over had left"]
    release({"live"})
