"""Rank 0's voice: metrics, pictures and progress of one attempt, and where its time went."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import torch

from orchestrator import pictures
from orchestrator.config import Experiment
from orchestrator.loop import Loop, SamplesDue, StepsDone
from orchestrator.tracking import SystemMetrics, Tracker
from shards.read import Dataset, Reader, Slice
from shards.storage import Store

PROGRESS_EVERY_S = 5.0


class Reporter:
    """Listens to the loop's events. `checkpoint_s` is added to from outside.

    earlier_s: seconds of finished steps that earlier attempts left in the checkpoint gone on from;
    run_started: the first attempt's start, in seconds since 1970.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        tracker: Tracker,
        store: Store,
        loop: Loop,
        first_step: int,
        earlier_s: float,
        run_started: float,
    ) -> None:
        self._tracker = tracker
        self._store = store
        self._loop = loop
        self._budget = experiment.budget
        self._global_batch = experiment.data.global_batch
        self._system = SystemMetrics(tracker)
        self._first_step = first_step
        self._earlier_s = earlier_s
        self._run_started = run_started
        self._started = self._told = self._window_started = time.monotonic()
        self.spent_s = {"compute": 0.0, "data_wait": 0.0, "checkpoint": 0.0, "samples": 0.0}

    @property
    def productive_s(self) -> float:
        """Seconds of steps that stand: this attempt's and those it went on from."""
        return self._earlier_s + self.spent_s["compute"]

    def on(self, event: Any) -> None:
        """Takes one event of the loop."""
        if isinstance(event, StepsDone):
            self._metrics(event)
        elif isinstance(event, SamplesDue):
            started = time.monotonic()
            self._samples(event.step)
            self.spent_s["samples"] += time.monotonic() - started

    def close(self) -> None:
        """Stops sampling the machine. The tracker is the caller's."""
        self._system.close()

    def goodput(self) -> dict[str, float]:
        """The run's seconds by what they went to, as shares; they sum to 1 for this attempt.

        `goodput/fraction` is of the whole run: steps that stand over the time since its first
        start, restarts and lost steps included.
        """
        wall_s = time.monotonic() - self._started
        shares = {f"goodput/{name}": spent / wall_s for name, spent in self.spent_s.items()}
        shares["goodput/other"] = 1 - sum(shares.values())
        shares["goodput/fraction"] = self.productive_s / (time.time() - self._run_started)
        return shares

    def _metrics(self, event: StepsDone) -> None:
        now = time.monotonic()
        wall_s, self._window_started = now - self._window_started, now
        self.spent_s["compute"] += event.compute_s
        self.spent_s["data_wait"] += event.data_wait_s
        rate = event.steps * self._global_batch / wall_s
        self._tracker.metrics(
            event.step,
            {
                **{f"train/{name}": value for name, value in event.metrics.items()},
                "data/wait_s": event.data_wait_s / event.steps,
                "sys/step_s": wall_s / event.steps,
                "sys/clips_per_s": rate,
                **self.goodput(),
            },
        )
        if now - self._told > PROGRESS_EVERY_S or event.step == self._budget.steps:
            self._told = now
            done = event.step - self._first_step
            left_s = (self._budget.steps - event.step) * (now - self._started) / done
            shown = "  ".join(f"{name} {value:.3f}" for name, value in event.metrics.items())
            print(
                f"step {event.step}/{self._budget.steps}  {rate:.1f} clips/s  "
                f"left {left_s / 60:.1f} min  {shown}",
                flush=True,
            )

    def _samples(self, step: int) -> None:
        parts = self._loop.learner.sample(self._loop.fixed_noise(self._budget.samples))
        grid = pictures.animated_grid(parts["sample"])
        self._store.write("samples.gif", grid)
        name = f"step-{step:08d}"
        self._tracker.artifact(f"samples/{name}.gif", grid)
        sheet = pictures.contact_sheet(parts["sample"])
        self._tracker.artifact(f"samples/{name}.png", sheet, slider=("samples", step))
        if len(parts) > 1:
            rows = torch.cat([videos[:4] for videos in parts.values()])
            self._tracker.artifact(f"streams/{name}.gif", pictures.animated_grid(rows))
            sheet = pictures.streams_sheet(parts)
            self._tracker.artifact(f"streams/{name}.png", sheet, slider=("streams", step))

    def real_clips(self, dataset: Dataset, seed: int) -> None:
        """The grid and the sheet of as many real clips as there are samples."""
        count = min(self._budget.samples, dataset.samples)
        slice_ = Slice(rank=0, world_size=1, global_batch=count)
        reader = Reader(dataset, seed=seed, slice=slice_, prefetch_mib=16, threads=1)
        with closing(reader.batches(0)) as batches:
            video_bthwc = next(batches).video_bthwc
        self._tracker.artifact("real/clips.gif", pictures.animated_grid(video_bthwc))
        self._tracker.artifact("real/clips.png", pictures.contact_sheet(video_bthwc))
