"""Placement groups that bear their run's name, so that one that nobody uses any more can be told.

Ray frees a placement group when the job and the actor that made it are both gone. Under a sweep the
job lives on, and Ray Train's own cleaner asks the dashboard, which may not be there. So every group
of ours is named, and a sweep removes those of trials that are over.
"""

from __future__ import annotations

import functools
from collections.abc import Set
from typing import Any

_PREFIX = "run:"
_IN_USE = ("CREATED", "PENDING", "PREPARED", "RESCHEDULING")


def named(run: str) -> Any:
    """A callback for Ray Train's controller: its placement groups bear the run's name."""
    from ray.train.v2._internal.execution.callback import ControllerCallback

    class Named(ControllerCallback):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            del train_run_context
            from ray.train.v2._internal.execution.worker_group import worker_group

            # This process is the run's controller: it makes no other placement groups.
            worker_group.placement_group = functools.partial(
                worker_group.placement_group, name=f"{_PREFIX}{run}"
            )

    return Named()


def claimed() -> dict[str, list[str]]:
    """{run: ids of the placement groups that it holds or waits for}."""
    from ray.util import placement_group_table

    out: dict[str, list[str]] = {}
    for group in placement_group_table().values():
        if group["name"].startswith(_PREFIX) and group["state"] in _IN_USE:
            run = group["name"].removeprefix(_PREFIX)
            out.setdefault(run, []).append(group["placement_group_id"])
    return out


def release(runs: Set[str]) -> list[str]:
    """Removes the placement groups of these runs, which must be over; the runs that had any."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    held = {run: ids for run, ids in claimed().items() if run in runs}
    for ids in held.values():
        for each in ids:
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(each)))
    return sorted(held)
