"""Sizes an elastic worker group by the nodes that are there, not by those that were.

Ray's autoscaling coordinator looks at the cluster every 20 s. Until then a group that lost a node
is started for it as well, and times out. So the controller, told that workers failed, waits until
Ray knows of every node that does not answer, and then makes the coordinator look.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

KNOWN_DEAD_S = 40.0  # Ray's health check takes half a minute where it is not tuned
_CONNECT_S = 1.0
_COORDINATOR = "AutoscalingCoordinator"
_log = logging.getLogger(__name__)


def silent(nodes: Iterable[Mapping[str, Any]], *, timeout_s: float = _CONNECT_S) -> set[str]:
    """The ids of those of Ray's live nodes whose raylet does not take a connection."""

    def answers(node: Mapping[str, Any]) -> bool:
        address = (node["NodeManagerAddress"], node["NodeManagerPort"])
        try:
            with socket.create_connection(address, timeout=timeout_s):
                return True
        except OSError:
            return False

    alive = [node for node in nodes if node["Alive"]]
    with ThreadPoolExecutor(64) as pool:
        answered = list(pool.map(answers, alive))
    return {node["NodeID"] for node, here in zip(alive, answered, strict=True) if not here}


def fresh_view() -> Any:
    """A callback for Ray Train's controller that does this when workers failed."""
    import ray
    from ray.train import UserCallback

    class FreshView(UserCallback):  # type: ignore[misc]
        def after_exception(self, run_context: Any, worker_exceptions: Any) -> None:
            del run_context, worker_exceptions
            lost = silent(ray.nodes())
            deadline = time.monotonic() + KNOWN_DEAD_S
            while lost & {n["NodeID"] for n in ray.nodes() if n["Alive"]}:
                if time.monotonic() > deadline:
                    _log.warning("%d node(s) do not answer, and Ray calls them alive", len(lost))
                    break
                time.sleep(0.2)
            try:
                coordinator = ray.get_actor(_COORDINATOR, namespace=_COORDINATOR)
                ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=5)
            except (ValueError, TypeError, ray.exceptions.RayError) as error:
                _log.warning("the next start may be sized for lost nodes: %s", error)

    return FreshView()
