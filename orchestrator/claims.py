"""Placement groups that bear their run's name, so that one that nobody uses any more can be told.

Ray frees a placement group when the job and the actor that made it are both gone. Under a sweep the
job lives on, and Ray Train's own cleaner asks the dashboard, which may not be there. So every group
of ours is named, by its job too, and a sweep removes those of its own trials that are over: the
same run may be another command's by then.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Set
from typing import Any

REAP_AFTER_S = 30.0  # the workers of a stopped run save and leave by themselves in less
LOOK_EVERY_S = 2.0
_IN_USE = ("CREATED", "PENDING", "PREPARED", "RESCHEDULING")
_log = logging.getLogger(__name__)


def name(run: str) -> str:
    """For a new placement group of a run that this job, or an actor of it, drives.

    Another each time: Ray refuses a name that is taken, and a group lives on for a while after its
    controller was killed or its workers were lost.
    """
    return f"{_prefix()}{run}:{uuid.uuid4().hex[:8]}"


def _prefix() -> str:
    import ray

    return f"run:{ray.get_runtime_context().get_job_id()}:"


def named(run: str) -> Any:
    """A callback for Ray Train's controller: its placement groups bear the run's name."""
    from ray.train.v2._internal.execution.callback import ControllerCallback

    class Named(ControllerCallback):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            del train_run_context
            from ray.train.v2._internal.execution.worker_group import worker_group

            make = worker_group.placement_group

            def placement_group(*arguments: Any, **options: Any) -> Any:
                return make(*arguments, **options, name=name(run))

            # This process is the run's controller: it makes no other placement groups.
            worker_group.placement_group = placement_group

    return Named()


def claimed() -> dict[str, list[str]]:
    """{run of this job: ids of the placement groups that it holds or waits for}."""
    from ray.util import placement_group_table

    prefix = _prefix()
    out: dict[str, list[str]] = {}
    for group in placement_group_table().values():
        if group["name"].startswith(prefix) and group["state"] in _IN_USE:
            run = group["name"].removeprefix(prefix).rpartition(":")[0]
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


class Reaper:
    """Frees what runs that are over still hold a while later, until it is closed.

    over: the runs that nobody drives now. say: told of every run that had left something.
    """

    def __init__(
        self,
        over: Callable[[], Set[str]],
        say: Callable[[str], None],
        *,
        after_s: float = REAP_AFTER_S,
    ) -> None:
        self._over = over
        self._say = say
        self._after_s = after_s
        self._since: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reaper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits until nothing of the runs that are over is held, and ends the thread."""
        self._closing.set()
        self._thread.join()
        deadline = time.monotonic() + self._after_s
        while self._held() and time.monotonic() < deadline:
            time.sleep(0.2)
        self._free(self._held())

    def _work(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            try:
                held, now = self._held(), time.monotonic()
                self._since = {run: self._since.get(run, now) for run in held}
                self._free({run for run in held if now - self._since[run] > self._after_s})
            except Exception as error:  # whatever a head that is away raises: look again
                _log.warning("placement groups cannot be asked for: %s", error)

    def _held(self) -> Set[str]:
        return self._over() & claimed().keys()

    def _free(self, runs: Set[str]) -> None:
        for run in release(runs) if runs else ():
            self._say(f"freed the placement group that {run} had left")
