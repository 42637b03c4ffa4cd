"""Rank 0's voice: metrics, pictures and progress of one attempt, and where its time went."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from statistics import median, median_low
from typing import Any

import numpy as np
import torch

from orchestrator import pictures
from orchestrator.accounts import Accounts, Note
from orchestrator.conditions import conditions_of
from orchestrator.config import Experiment
from orchestrator.history import ACCOUNTS
from orchestrator.loop import Loop, SamplesDue, Spent, StepsDone, to_video
from orchestrator.provenance import DEVICE_TAG, device_name
from orchestrator.tracking import SystemMetrics, Tracker, node_of
from shards.read import Dataset, Reader, Slice
from shards.storage import Store

NOTE_EVERY_S = 10.0
SAMPLES, KEPT = "samples.npz", 4
PROGRESS_EVERY_S = 5.0
SLOW, SLOW_WINDOWS = 1.25, 10  # a straggler takes so many times as long, in so many windows on end
_log = logging.getLogger(__name__)


class Reporter:
    """Listens to the loop's events, and keeps the run's accounts.

    hosts: of every worker, by rank. flops_per_clip: of a training step. peak_tflops: of all
    workers together, None if unknown. keeps_samples: also puts the newest samples' pixels, of few
    clips, into the run's store (SAMPLES), for a sweep to lay them side by side.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        tracker: Tracker,
        store: Store,
        loop: Loop,
        first_step: int,
        accounts: Accounts,
        hosts: list[str],
        flops_per_clip: int,
        peak_tflops: float | None,
        keeps_samples: bool = False,
    ) -> None:
        self._tracker = tracker
        self._store = store
        self._loop = loop
        self._budget = experiment.budget
        self._global_batch = experiment.data.global_batch
        self._system = SystemMetrics(tracker, node=node_of(hosts, 0)[0])
        nodes = " ".join(f"node_{n}={host}" for n, host in enumerate(dict.fromkeys(hosts)))
        tracker.tags({DEVICE_TAG: device_name(loop.device), "orchestrator.nodes": nodes})
        self._first_step = self._furthest = first_step
        self._accounts = accounts
        self._stragglers = Stragglers(hosts)
        self._flops_per_clip = flops_per_clip
        self._peak_tflops = peak_tflops
        self._keeps_samples = keeps_samples
        self._given: dict[str, Any] = {}
        self._started = self._told = self._window_started = time.monotonic()
        self.figures: dict[str, float] = {}  # of the last window, by MLflow's names
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep_notes, name="accounts", daemon=True)
        self._keeper.start()

    def on(self, event: Any) -> None:
        """Takes one event of the loop."""
        started = time.perf_counter()
        if isinstance(event, StepsDone):
            self._metrics(event)
            slow = self._stragglers.told(event)
            if slow is not None:
                print(slow, flush=True)
            self.add("logging", time.perf_counter() - started)
        elif isinstance(event, SamplesDue):
            self._samples(event.step)
            self.add("samples", time.perf_counter() - started)

    def add(self, account: str, seconds: float) -> None:
        """Counts seconds that rank 0 spent."""
        self._accounts.add(account, seconds)

    def rolled_back(self, saved: Note | None, times: int) -> None:
        """The run went back to a checkpoint, or to its beginning, for the `times`-th time."""
        self._accounts.undo(saved or Note(at=0.0))
        self._tracker.tags({"orchestrator.rollbacks": times})

    def note(self) -> Note:
        """The run's accounts now."""
        return self._accounts.note(time.time())

    def close(self) -> None:
        """Ends the threads. The tracker is the caller's."""
        self._closing.set()
        self._keeper.join()
        self._system.close()

    def goodput(self) -> dict[str, float]:
        """The run's time since its first command by account, as shares that sum to 1.

        `goodput/fraction` is the share of steps that stand, without what they waited for data.
        """
        shares = self._accounts.shares(time.time())
        out = {f"goodput/{name}": share for name, share in shares.items()}
        out["goodput/fraction"] = shares["compute"] + shares["collective"]
        return out

    def _keep_notes(self) -> None:
        while not self._closing.wait(NOTE_EVERY_S):
            self._write_note()
        self._write_note()

    def _write_note(self) -> None:
        try:
            self._store.write(ACCOUNTS, json.dumps(dataclasses.asdict(self.note())).encode())
        except OSError as error:
            _log.warning("the accounts could not be noted: %s", error)

    def _metrics(self, event: StepsDone) -> None:
        now = time.monotonic()
        wall_s, self._window_started = now - self._window_started, now
        steps = event.steps
        for account, seconds in accounted(event.spent).items():
            self.add(account, seconds)
        rate = steps * self._global_batch / wall_s
        busy = [spent.compute_s for spent in event.spent]
        slowest = max(range(len(busy)), key=busy.__getitem__)
        tflops = rate * self._flops_per_clip / 1e12
        values = {
            **{f"train/{name}": value for name, value in event.metrics.items()},
            "data/wait_s": max(spent.data_wait_s for spent in event.spent) / steps,
            "sys/step_s": wall_s / steps,
            "sys/compute_s": median(busy) / steps,
            "sys/compute_slowest_s": busy[slowest] / steps,
            "sys/slowest_rank": float(slowest),
            "sys/collective_s": median(spent.collective_s for spent in event.spent) / steps,
            "sys/clips_per_s": rate,
            "sys/tflop_per_s": tflops,
            **self.goodput(),
        }
        if self._peak_tflops is not None:
            values["sys/mfu"] = tflops / self._peak_tflops
        if memory := max(spent.device_gib for spent in event.spent):
            values["sys/device_memory_gib"] = memory
        self.figures = values
        if event.step > self._furthest:  # one that was rolled back has told it already
            self._furthest = event.step
            self._tracker.metrics(event.step, values)
        if now - self._told > PROGRESS_EVERY_S or event.step == self._budget.steps:
            self._told = now
            self._progress(event, rate, now)

    def _progress(self, event: StepsDone, rate: float, now: float) -> None:
        done = event.step - self._first_step
        left_s = (self._budget.steps - event.step) * (now - self._started) / done
        shown = "  ".join(f"{name} {value:.3f}" for name, value in event.metrics.items())
        print(
            f"step {event.step}/{self._budget.steps}  {rate:.1f} clips/s  "
            f"left {left_s / 60:.1f} min  {shown}",
            flush=True,
        )

    def _samples(self, step: int) -> None:
        learner, device = self._loop.learner, self._loop.device
        noise = self._loop.fixed_noise(self._budget.samples)
        video_bcthw = None
        if learner.needs_clips:
            video_bcthw = to_video(self._clips_bthwc, device)
            noise = noise[: len(video_bcthw)]
        given = {name: torch.from_numpy(rows).to(device) for name, rows in self._given.items()}
        for rows in given.values():
            noise = noise[: len(rows)]
        given = {name: rows[: len(noise)] for name, rows in given.items()}
        parts = learner.sample(noise, video_bcthw, **given)
        grid = pictures.animated_grid(parts["sample"])
        self._store.write("samples.gif", grid)
        if self._keeps_samples:
            packed = io.BytesIO()
            clips = pictures.to_pixels(parts["sample"][:KEPT])
            np.savez_compressed(packed, clips=clips, step=step)
            self._store.write(SAMPLES, packed.getvalue())
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
        """Takes as many real clips as there are samples, the same all through a run; at the run's
        first step their grid and sheet go to MLflow."""
        started = time.perf_counter()
        learner = self._loop.learner
        if self._first_step and not (learner.needs_clips or learner.conditions):
            return
        count = min(self._budget.samples, dataset.samples)
        slice_ = Slice(rank=0, world_size=1, global_batch=count)
        reader = Reader(
            dataset,
            seed=seed,
            slice=slice_,
            prefetch_mib=16,
            threads=1,
            with_json=bool(learner.conditions),
        )
        with closing(reader.batches(0)) as batches:
            batch = next(batches)
            self._clips_bthwc = batch.video_bthwc.copy()
            self._given = conditions_of(learner, dataset)(batch)
        if self._first_step == 0:
            grid = pictures.animated_grid(self._clips_bthwc)
            self._tracker.artifact("real/clips.gif", grid)
            self._tracker.artifact("real/clips.png", pictures.contact_sheet(self._clips_bthwc))
        self.add("samples", time.perf_counter() - started)


def accounted(spent: Sequence[Spent]) -> dict[str, float]:
    """Rank 0's seconds of a window by account. Where it waited for a worker that had waited for its
    data longer than rank 0 itself, that is waiting for data, and no work of the collective."""
    mine = spent[0]
    behind = max(each.data_wait_s for each in spent) - mine.data_wait_s
    late = min(mine.collective_s, behind)
    return {
        "compute": mine.compute_s,
        "collective": mine.collective_s - late,
        "data_wait": mine.data_wait_s + late,
    }


class Stragglers:
    """Names the rank that the others wait for, once it has been slow for a while."""

    def __init__(self, hosts: list[str]) -> None:
        self._hosts = hosts
        self._windows = 0

    def told(self, event: StepsDone) -> str | None:
        """What to say after this window of steps, if anything."""
        busy = [spent.compute_s + spent.data_wait_s for spent in event.spent]
        slowest = max(range(len(busy)), key=busy.__getitem__)
        usual = median_low(busy)
        self._windows = self._windows + 1 if busy[slowest] > SLOW * usual else 0
        if not self._windows or self._windows % SLOW_WINDOWS:
            return None
        return (
            f"STRAGGLER: rank {slowest} on {self._hosts[slowest]} takes "
            f"{busy[slowest] / event.steps:.3f} s a step, the others {usual / event.steps:.3f}"
        )
