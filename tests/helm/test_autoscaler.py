"""Ray's own autoscaler reads the chart's RayCluster, and decides what to start for a run."""

from typing import Any

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as derive,
)
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest

from tests.helm.manifests import EXAMPLES, NAMESPACE, example, of_kind, render

pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
A_GPU, A_CPU = {"CPU": 4, "GPU": 1}, {"CPU": 1}  # a worker of --scale cluster, an ingest's task


def configuration(values: dict[str, Any]) -> dict[str, Any]:
    """What the autoscaler makes of the RayCluster, as the API server hands it out."""
    (cluster,) = of_kind(render(values), "RayCluster")
    cluster["metadata"]["namespace"] = NAMESPACE
    made: dict[str, Any] = derive(cluster)
    return made


def started(workers: int, each: dict[str, int], **failed_lately: float) -> dict[str, int]:
    """{group: pods to start} for so many workers at once on `eks-spot-64gpu`, where none is yet."""
    config = AutoscalingConfig(configuration(example("eks-spot-64gpu")), skip_content_hash=True)
    bundles = [ResourceRequestUtil.make(each)] * workers
    asked = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_worker_nodes(),
        gang_resource_requests=[GangResourceRequest(requests=bundles)],
        recoverable_resource_availabilities=failed_lately,
    )
    decided = ResourceDemandScheduler().schedule(asked)
    assert not decided.infeasible_gang_resource_requests
    return {launch.instance_type: launch.count for launch in decided.to_launch}


@pytest.mark.parametrize(
    "name", [each for each in EXAMPLES if example(each).get("ray", {}).get("cluster", True)]
)
def test_autoscaler_sees_each_group_as_the_values_have_it(name: str) -> None:
    types = configuration(example(name))["available_node_types"]
    assert types.pop("headgroup")["resources"]["CPU"] == 0
    seen = {
        group: (of["min_workers"], of["max_workers"], of["resources"])
        for group, of in types.items()
    }
    assert seen == {
        group["name"]: (
            group["min"],
            group["max"],
            {
                "CPU": group["cpu"],
                "GPU": group["gpus"],
                "memory": int(group["memory"].removesuffix("Gi")) << 30,
            },
        )
        for group in example(name)["workers"]
    }


def test_run_gets_spot_nodes_first_and_the_rest_on_demand() -> None:
    assert started(64, A_GPU) == {"spot": 8}
    assert started(72, A_GPU) == {"spot": 8, "on-demand": 1}


def test_run_gets_nodes_on_demand_while_the_cloud_has_no_spot_ones() -> None:
    assert started(64, A_GPU, spot=0.0) == {"on-demand": 8}


def test_ingest_of_few_tasks_starts_no_node_with_gpus() -> None:
    assert started(64, A_CPU) == {"ingest": 2}
