"""Ends a run whose workers die before they begin, again and again.

Ray Train counts the deaths of workers that train, and waits without end for nodes to come. It also
tries without end where nodes are there and a worker's process does not live, as on a full disk:
pages of the log every few seconds, and an end never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def bounded(most: int) -> Any:
    """A callback for Ray Train's controller: more than `most` failed starts on end, and the run
    fails, with what its workers died of last. One that timed out, waiting for nodes, is none."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Bounded(WorkerGroupCallback):  # type: ignore[misc]
        failed = 0
        died_of = ""

        @contextmanager
        def on_worker_group_start(self) -> Iterator[None]:
            try:
                yield
            except WorkerGroupStartupFailedError as error:
                self.failed += 1
                if self.failed <= most:
                    raise
                before = f", after they had died of {self.died_of}" if self.died_of else ""
                raise RuntimeError(
                    f"workers could not be started {self.failed} times on end{before}; Ray says: "
                    f"{_briefly(error.__cause__ or error)[:200]}"
                ) from None
            self.failed = 0

        def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
            if worker_group_status.errors:
                self.died_of = told(worker_group_status.errors)

    return Bounded()


def told(errors: Mapping[int, Exception]) -> str:
    """A line of what each rank died of, by rank."""
    lines = (f"rank {rank}: {_briefly(error)}" for rank, error in sorted(errors.items()))
    return "; ".join(lines)


def _briefly(error: BaseException) -> str:
    """The last line of what may be pages, and before it the one that says where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = [line for line in lines[:-1] if line.startswith("ip: ")]
    return " ".join([*where[:1], *lines[-1:]]) or type(error).__name__
