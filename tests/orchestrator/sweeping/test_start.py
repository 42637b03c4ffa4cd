"""How many trials a sweep begins at a time, by what the cluster has."""

from types import SimpleNamespace

import pytest
import ray
from ray.autoscaler.v2 import utils

from orchestrator.experiments import resolve
from orchestrator.sweeping.start import slots


@pytest.fixture
def cluster(monkeypatch):
    """What the cluster has now, all of it free, and whether an autoscaler is there."""
    now = SimpleNamespace(resources={}, grows=False)
    for name in ("cluster_resources", "available_resources"):
        monkeypatch.setattr(ray, name, lambda: dict(now.resources))
    monkeypatch.setattr(utils, "is_autoscaler_v2", lambda: now.grows)
    return now


def planned(concurrent=None):
    overrides = ["resources.num_workers=2", "resources.use_gpu=true", "resources.cpus_per_worker=4"]
    return SimpleNamespace(
        experiment=resolve("vgan_unfiltered", None, overrides),
        sweep=SimpleNamespace(concurrent=concurrent),
    )


def test_trials_are_as_many_as_fit_and_follow_the_cluster(cluster):
    cluster.resources = {"CPU": 16.0, "GPU": 5.0}
    now = slots(planned())
    assert now() == 2
    cluster.resources = {"CPU": 64.0, "GPU": 8.0}
    assert now() == 4
    assert slots(planned(concurrent=3))() == 3


def test_trial_that_fits_nowhere_is_refused_with_the_numbers(cluster):
    cluster.resources = {"CPU": 16.0}
    with pytest.raises(ValueError, match="a trial needs 8 CPU of 16, 2 GPU of 0"):
        slots(planned())


def test_one_more_than_fits_waits_where_an_autoscaler_brings_nodes_for_it(cluster):
    cluster.grows = True
    now = slots(planned())
    assert now() == 1
    cluster.resources = {"CPU": 16.0, "GPU": 8.0}
    assert now() == 3
    assert slots(planned(concurrent=2))() == 2
