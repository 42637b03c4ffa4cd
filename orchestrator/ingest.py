"""An ingest as a tracked run: `python -m orchestrator.ingest SRC DST [--recipe flickr]`.

Does what `python -m shards.ingest` does, with the same arguments, and tells MLflow (experiment
`ingest`) how far it is: videos done, clips kept and rejected by reason, hours of video, hours of
video per core-hour, time left. The run ends with the report and the dataset's version. The same
command started again goes on with the same MLflow run.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

from orchestrator.site import Site
from orchestrator.tracking import Tracker
from shards import ingest
from shards.manifest import load_manifest
from shards.progress import Progress
from shards.recipe import Recipe
from shards.report import REPORT
from shards.storage import open_store

EXPERIMENT = "ingest"
TELL_EVERY_S = 5.0
CLOSE_TIMEOUT_S = 30.0


class Told(Progress):
    """A phase whose numbers go to MLflow.

    Steps go up across phases and restarts: videos cut, again or for the first time, then shards.
    """

    def __init__(self, phase: str, tracker: Tracker, after: Told | None) -> None:
        super().__init__(phase)
        self._tracker = tracker
        self._after = after
        self._told = 0.0

    @property
    def step(self) -> int:
        """MLflow's."""
        return self.done + self.repeated + (self._after.step + 1 if self._after else 0)

    def moved(self) -> None:
        now = time.monotonic()
        if now - self._told < TELL_EVERY_S and not self.over:
            return
        self._told = now
        values = {f"{self.phase}/done": self.done, f"{self.phase}/eta_s": self.left_s}
        if self.phase == "cut":
            values |= {"hours_of_video": self.hours}
            values |= {"hours_of_video_per_core_hour": self.hours_per_core_hour}
            values |= {_metric(name): count for name, count in self.counts.items()}
        self._tracker.metrics(self.step + self.over, values)


def _metric(count: str) -> str:
    """`kept` -> clips/kept, `too_wild` -> clips/too_wild, `video empty` -> videos/empty."""
    kind, _, reason = count.rpartition(" ")
    return f"{kind or 'clip'}s/{reason}"


class _Run:
    """The MLflow run of one ingest, made when there is something to say."""

    def __init__(self, src: str, dst: str, recipe: Recipe) -> None:
        self._params = {"src": src, "dst": dst}
        self._params |= {f"recipe.{name}": value for name, value in recipe.to_dict().items()}
        self._tracker: Tracker | None = None
        self._phase: Told | None = None

    @property
    def tracker(self) -> Tracker:
        """Speaks from its first use on."""
        if self._tracker is None:
            site = Site.from_environment()
            digest = hashlib.sha256(json.dumps(self._params, sort_keys=True).encode()).hexdigest()
            dataset = self._params["dst"].rstrip("/").rpartition("/")[2]
            name = f"ingest-{dataset}-{digest[:8]}"
            self._tracker = Tracker(
                uri=site.mlflow_uri,
                run=name,
                outbox=site.outbox(name),
                writer="ingest",
                creates=EXPERIMENT,
            )
            self._tracker.status("RUNNING")
            self._tracker.params(self._params)
        return self._tracker

    def progress(self, phase: str) -> Progress:
        """For `shards.ingest.ingest`."""
        self._phase = Told(phase, self.tracker, self._phase)
        return self._phase

    def close(self, status: int) -> None:
        """Sends how it ended, if it began."""
        dst = self._params["dst"]
        store = open_store(dst)
        if status == 0:
            manifest = load_manifest(store)
            self.tracker.tags({"dataset.version": manifest.version, "dataset.location": dst})
            self.tracker.tags({"dataset.samples": manifest.samples})
        if self._tracker is None:
            return
        if status in (0, 1) and any(name == REPORT for name, _ in store.list(REPORT)):
            self._tracker.artifact(REPORT, store.read(REPORT))
        self._tracker.status("FINISHED" if status == 0 else "FAILED")
        self._tracker.close(timeout_s=CLOSE_TIMEOUT_S)
        print(f"MLflow: {self._tracker.page}")


def tracked(src: str, dst: str, recipe: Recipe, **options: Any) -> int:
    """`shards.ingest.ingest_command`, told to MLflow; returns the exit status."""
    run = _Run(src, dst, recipe)
    status = 1
    try:
        status = ingest.ingest_command(src, dst, recipe, progress=run.progress, **options)
    finally:
        run.close(status)
    return status


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return ingest.main(
        arguments, prog="python -m orchestrator.ingest", description=__doc__, run=tracked
    )


if __name__ == "__main__":
    sys.exit(main())
