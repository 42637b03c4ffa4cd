"""What one worker does: it wires the reader, the learner, the loop and those who listen to it.

It knows neither Ray nor MLflow's names, only a `Job` (plain data), a `World` and a device, so that
it runs the same in a Ray Train worker, in a test and alone.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator import parallel, pictures
from orchestrator.checkpoint import Checkpoints
from orchestrator.config import Experiment, plain
from orchestrator.ledger import Ledger
from orchestrator.loop import (
    Batch,
    CheckpointDue,
    Loop,
    SamplesDue,
    StepsDone,
    World,
    keyed_generator,
)
from orchestrator.site import Site
from orchestrator.tracking import SystemMetrics, Tracker
from shards.read import Dataset, Reader, Slice, check_state, open_dataset
from shards.storage import Store, open_store

_log = logging.getLogger(__name__)
PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, as every worker receives it. git: the commit, with `+dirty` where it was."""

    name: str
    experiment: Experiment
    site: Site
    dataset_version: str
    git: str


class DivergedError(Exception):
    """A loss is not finite. Starting again would do the same, so nobody should."""


def work(job: Job, world: World, device: torch.device) -> dict[str, Any]:
    """Trains until the budget is spent, from the newest good checkpoint; the final metrics.

    Raises DivergedError when a metric is not finite, ValueError when the dataset is another
    one than the job names.
    """
    experiment, data = job.experiment, job.experiment.data
    torch.set_num_threads(experiment.resources.threads)
    store = open_store(job.site.run(job.name))
    checkpoints = Checkpoints(store, keep=experiment.budget.keep_checkpoints)
    dataset = _open(job)
    loop = _loop(experiment, world, device)
    attempt, first_step = parallel.from_rank_0(
        _begin(store, checkpoints, world) if world.rank == 0 else None
    )
    if first_step:
        checkpoint = checkpoints.load(first_step)
        check_state(checkpoint.facts["reader"], dataset, experiment.seed, data.block_shards)
        loop.load(checkpoint.state)
    reader = Reader(
        dataset,
        seed=experiment.seed,
        slice=Slice(rank=world.rank, world_size=world.size, global_batch=data.global_batch),
        block_shards=data.block_shards,
        prefetch_mib=data.prefetch_mib,
        threads=data.reader_threads,
    )
    ledger = Ledger(store, attempt=attempt, rank=world.rank) if data.ledger else None
    keeper = _Keeper(job=job, loop=loop, checkpoints=checkpoints, ledger=ledger, reader=reader)
    listeners: list[Callable[[Any], None]] = [_halt_if_not_finite, keeper.on]
    reporter = _Reporter(job, store, loop, world, dataset, first_step) if world.rank == 0 else None
    if reporter is not None:
        listeners.insert(0, reporter.on)
    try:
        with closing(reader.batches(first_step)) as batches:
            for event in loop.run(_noting(batches, ledger), first_step):
                for listen in listeners:
                    listen(event)
    finally:
        if reporter is not None:
            reporter.close()
    result = {"steps": experiment.budget.steps, "metrics": keeper.last_metrics}
    if world.rank == 0:
        store.write("result.json", json.dumps(result, indent=1, sort_keys=True).encode())
    return result


def _open(job: Job) -> Dataset:
    dataset = open_dataset(job.site.dataset(job.experiment.data.name))
    if dataset.version != job.dataset_version:
        raise ValueError(
            f"dataset {job.experiment.data.name!r} changed since the run was started: version "
            f"{dataset.version[:12]}, the run's is {job.dataset_version[:12]}"
        )
    return dataset


def _loop(experiment: Experiment, world: World, device: torch.device) -> Loop:
    # The weights of a run are a function of its seed alone.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(keyed_generator(experiment.seed, "weights", 0).get_state())
        learner = experiment.model.build()
    if experiment.resources.sync_batch_norm:
        parallel.synchronise_batch_norm(learner)
    return Loop(
        learner,
        optim=experiment.optim,
        budget=experiment.budget,
        seed=experiment.seed,
        global_batch=experiment.data.global_batch,
        device=device,
        world=world,
    )


def _begin(store: Store, checkpoints: Checkpoints, world: World) -> tuple[int, int]:
    """(this attempt's number, the step to go on from); notes the attempt in the store."""
    newest = checkpoints.newest()
    first_step = newest.step if newest is not None else 0
    attempt = 1 + sum(1 for _ in store.list("attempts/"))
    facts = {"first_step": first_step, "world_size": world.size, "time": time.time()}
    while not store.write_new(f"attempts/{attempt:04d}.json", json.dumps(facts).encode()):
        attempt += 1
    return attempt, first_step


def _noting(batches: Iterator[Any], ledger: Ledger | None) -> Iterator[Batch]:
    for batch in batches:
        if ledger is not None:
            ledger.add(batch.step, batch.keys)
        yield batch


def _halt_if_not_finite(event: Any) -> None:
    if isinstance(event, StepsDone):
        bad = {k: v for k, v in event.metrics.items() if not math.isfinite(v)}
        if bad:
            raise DivergedError(f"not finite after step {event.step}: {bad}; try a lower optim.lr")


@dataclass(kw_only=True)
class _Keeper:
    """Writes checkpoints: the ledger of all ranks first, then the state by rank 0."""

    job: Job
    loop: Loop
    checkpoints: Checkpoints
    ledger: Ledger | None
    reader: Reader
    last_metrics: dict[str, float] | None = None

    def on(self, event: Any) -> None:
        if isinstance(event, StepsDone):
            self.last_metrics = event.metrics
        if not isinstance(event, CheckpointDue):
            return
        if self.ledger is not None:
            self.ledger.flush()
            parallel.barrier()
        if parallel.world().rank == 0:
            facts = {
                "run": self.job.name,
                "reader": self.reader.state(event.step),
                "experiment": plain(self.job.experiment),
                "git": self.job.git,
            }
            self.checkpoints.save(event.step, self.loop.state(), facts)


class _Reporter:
    """Rank 0's voice: metrics, pictures and progress."""

    def __init__(
        self,
        job: Job,
        store: Store,
        loop: Loop,
        world: World,
        dataset: Dataset,
        first_step: int,
    ) -> None:
        self._store = store
        self._loop = loop
        self._world = world
        self._budget = job.experiment.budget
        self._global_batch = job.experiment.data.global_batch
        self._tracker = Tracker(
            uri=job.site.mlflow_uri, run=job.name, outbox=job.site.outbox(job.name), writer="rank0"
        )
        self._system = SystemMetrics(self._tracker)
        self._first_step = first_step
        self._started = self._told = self._window_started = time.monotonic()
        self._busy_s = self._wait_s = 0.0
        if first_step == 0:
            self._pictures_of_real_clips(dataset, job.experiment.seed)
        print(
            f"{job.name}: {world.size} worker(s), from step {first_step} to {self._budget.steps}",
            flush=True,
        )

    def on(self, event: Any) -> None:
        if isinstance(event, StepsDone):
            self._metrics(event)
        elif isinstance(event, SamplesDue):
            self._samples(event.step)

    def close(self) -> None:
        self._system.close()
        self._tracker.close(timeout_s=30)

    def _metrics(self, event: StepsDone) -> None:
        now = time.monotonic()
        wall_s, self._window_started = now - self._window_started, now
        self._busy_s += event.compute_s
        self._wait_s += event.data_wait_s
        rate = event.steps * self._global_batch / wall_s
        values = {f"train/{name}": value for name, value in event.metrics.items()}
        values |= {
            "data/wait_s": event.data_wait_s / event.steps,
            "sys/step_s": wall_s / event.steps,
            "sys/clips_per_s": rate,
            "goodput/compute_fraction": self._busy_s / (now - self._started),
            "goodput/data_wait_fraction": self._wait_s / (now - self._started),
        }
        self._tracker.metrics(event.step, values)
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

    def _pictures_of_real_clips(self, dataset: Dataset, seed: int) -> None:
        count = min(self._budget.samples, dataset.manifest.samples)
        slice_ = Slice(rank=0, world_size=1, global_batch=count)
        reader = Reader(dataset, seed=seed, slice=slice_, prefetch_mib=16, threads=1)
        with closing(reader.batches(0)) as batches:
            video_bthwc = next(batches).video_bthwc
        self._tracker.artifact("real/clips.gif", pictures.animated_grid(video_bthwc))
        self._tracker.artifact("real/clips.png", pictures.contact_sheet(video_bthwc))
