"""What one worker does: it wires the reader, the learner, the loop and those who listen to it.

It knows neither Ray nor MLflow's names, only a `Job` (plain data), a `World` and a device, so that
it runs the same in a Ray Train worker, in a test and alone.

What it goes through on its own: it starts from the newest checkpoint that verifies; a loss that is
not finite or explodes rolls back to the last one with half the learning rate, a bounded number of
times; when the driver asks it to stop, or its node is being taken away, it saves at the next logged
step and leaves; when no step ends for long, every worker writes its stacks and exits, to be started
again.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from models.learner import evaluating
from orchestrator import parallel
from orchestrator.accounts import Accounts, Note
from orchestrator.checkpoint import BackgroundSaver, Checkpoint, Checkpoints
from orchestrator.conditions import class_names, conditions_of, value_names
from orchestrator.config import Experiment, plain
from orchestrator.hardware import peak_tflops
from orchestrator.history import Attempt, History
from orchestrator.ledger import Ledger
from orchestrator.loop import Batch, CheckpointDue, Event, Loop, StepsDone, World, to_video
from orchestrator.reporter import Reporter
from orchestrator.site import Site
from orchestrator.soundness import DivergingError, Soundness
from orchestrator.start import new_learner, run_dataset
from orchestrator.tracking import SystemMetrics, Tracker, node_of
from orchestrator.watchdog import Watchdog
from shards.cache import Cache
from shards.read import Dataset, Reader, Slice, check_state
from shards.storage import Store, open_store

ASK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, as every worker receives it.

    git: the commit, with `+dirty` where it was. command_at: when the driver's command was given, in
    seconds since 1970. flops_per_clip: of a training step. report_every: steps after which the
    metrics are also put into the run's store (`History.report`), for whoever waits for them there.
    """

    name: str
    experiment: Experiment
    site: Site
    dataset_version: str
    git: str
    command_at: float
    flops_per_clip: int
    report_every: int | None = None


class DivergedError(Exception):
    """The loss is not finite, and rolling back did not help."""


def work(
    job: Job,
    world: World,
    device: torch.device,
    *,
    preempted: Callable[[], bool] = lambda: False,
    told: Callable[[dict[str, float]], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains until the budget is spent or somebody asks to stop.

    preempted: whether a worker's node is about to be taken away; called by all workers together.
    told: hears this worker's figures after each window of steps, by MLflow's names.
    Returns `{"steps", "metrics"}` at the end, `{"interrupted": "stop" | "preempted", "step"}`
    after an interruption, with everything up to `step` saved, and `{"interrupted": "superseded"}`
    where the run has been started again meanwhile and nobody ended this start: nothing is saved.
    Raises DivergedError when the loss stays not finite, ValueError when the dataset is another one
    than the job names.
    """
    torch.set_num_threads(job.experiment.resources.threads)
    attempt = _Attempt(job, world, device, preempted, told)
    try:
        while True:
            try:
                return attempt.run()
            except DivergingError as error:
                attempt.roll_back(error)
    finally:
        attempt.close()


class _Attempt:
    """One worker's life, from a start of the worker group to its end."""

    def __init__(
        self,
        job: Job,
        world: World,
        device: torch.device,
        preempted: Callable[[], bool],
        told: Callable[[dict[str, float]], None],
    ) -> None:
        self._job = job
        self._world = world
        self._device = device
        self._preempted = preempted
        self._told = told
        self._store = open_store(job.site.run(job.name))
        budget = job.experiment.budget
        self._checkpoints = Checkpoints(
            self._store,
            keep=budget.keep_checkpoints,
            metric=budget.best_metric,
            highest=budget.best_is == "highest",
        )
        self._history = History(self._store)
        self._dataset = run_dataset(job.experiment, job.site, job.dataset_version)
        self._loop = _make_loop(job, self._dataset, world, device)
        learner = self._loop.learner
        self._classes = class_names(learner, self._dataset) if learner.classes else []
        self._attempt: Attempt = parallel.from_rank_0(self._begin() if world.rank == 0 else None)
        self._first_step = self._attempt.first_step
        self._saver = BackgroundSaver(
            self._checkpoints, may_write=lambda: self._history.is_newest(self._attempt.number)
        )
        self._reader = self._make_reader(with_json=bool(self._loop.learner.conditions))
        self._ledger = (
            Ledger(self._store, attempt=self._attempt.number, rank=world.rank)
            if job.experiment.data.ledger
            else None
        )
        self._soundness = Soundness(job.experiment.resources.explosion)
        saved = self._load(self._first_step)
        self._watchdog = Watchdog(
            self._store,
            f"hangs/{self._attempt.number:04d}-{world.rank:05d}.txt",
            timeout_s=job.experiment.resources.hang_timeout_s,
        )
        self._last: StepsDone | None = None
        self._asked = time.monotonic()
        self._tracker: Tracker | None = None
        self._reporter: Reporter | None = None
        self._system: SystemMetrics | None = None
        hosts = parallel.gathered(socket.gethostname())
        node, speaks = node_of(hosts, world.rank)
        if world.rank == 0:
            self._report(saved, hosts)
        elif speaks:
            self._tracker = self._new_tracker(f"node{node}")
            self._system = SystemMetrics(self._tracker, node=node)

    def run(self) -> dict[str, Any]:
        """Trains from the attempt's first step; see `work`."""
        with closing(self._reader.batches(self._first_step)) as batches:
            for event in self._loop.run(self._noting(batches), self._first_step):
                if isinstance(event, StepsDone):
                    self._soundness.require(event)
                    self._last = event
                    if event.step == self._job.experiment.budget.steps:
                        self._fit()
                if self._reporter is not None:
                    self._reporter.on(event)
                    self._publish(event)
                if isinstance(event, CheckpointDue):
                    self._save(event.step)
                if isinstance(event, StepsDone):
                    self._told(self._figures(event))
                    reason = self._interruption()
                    if reason == "superseded":
                        return {"interrupted": reason, "step": event.step}
                    if reason and event.step < self._job.experiment.budget.steps:
                        self._save(event.step)
                        self._saver.wait()
                        parallel.barrier()
                        return {"interrupted": reason, "step": event.step}
        self._saver.wait()
        if parallel.largest(int(self._saver.is_superseded)):
            return {"interrupted": "superseded", "step": self._job.experiment.budget.steps}
        assert self._last is not None or self._first_step, "a budget has at least one step"
        metrics = self._last.metrics if self._last else {}
        result = {"steps": self._job.experiment.budget.steps, "metrics": metrics}
        if self._world.rank == 0:
            self._history.finish(result)
        return result

    def _figures(self, event: StepsDone) -> dict[str, float]:
        """What this worker knows: the samples it could not read, and on rank 0 the run."""
        mine = {"rejected": float(len(self._reader.quarantined))}
        if self._reporter is None:
            return mine
        mine |= {"step": float(event.step), "checkpoint_at": self._saver.saved_at}
        mine |= {"rollbacks": float(self._rollbacks)}
        return {**self._reporter.figures, **mine}

    def _publish(self, event: Event) -> None:
        """Reports a window's metrics to the run's store where one is due."""
        every = self._job.report_every
        if every is None or not isinstance(event, StepsDone):
            return
        if event.step % every == 0 or event.step == self._job.experiment.budget.steps:
            self._history.report(event.step, event.metrics)

    def _begin(self) -> Attempt:
        newest = self._checkpoints.newest()
        return self._history.begin(
            first_step=0 if newest is None else newest.step,
            world_size=self._world.size,
            command_at=self._job.command_at,
        )

    def _make_reader(self, *, with_json: bool = False) -> Reader:
        job, data = self._job, self._job.experiment.data
        cache = None
        if data.cache_gib is not None:
            root = job.site.shards_cache
            cache = Cache(root=root, limit_gib=data.cache_gib, decode=data.cache_pixels)
        return Reader(
            self._dataset,
            seed=job.experiment.seed,
            slice=Slice(
                rank=self._world.rank,
                world_size=self._world.size,
                global_batch=data.global_batch,
            ),
            block_shards=data.block_shards,
            prefetch_mib=data.prefetch_mib,
            threads=data.reader_threads,
            cache=cache,
            with_json=with_json,
        )

    def roll_back(self, error: DivergingError) -> None:
        """Goes back to the last good checkpoint with half the learning rate.

        Raises DivergedError when `resources.max_rollbacks` are used up. The halvings are kept in
        the store, so that a restart trains on with the same rate.
        """
        self._saver.wait()
        parallel.barrier()
        done = self._history.rollbacks
        parallel.barrier()
        if done >= self._job.experiment.resources.max_rollbacks:
            raise DivergedError(f"{error}; {done} rollback(s) did not help: lower optim.lr")
        if self._world.rank == 0:
            self._history.roll_back(done + 1, str(error))
            print(f"ROLLBACK {done + 1}: {error}; halving the learning rate", flush=True)
        parallel.barrier()
        steps = self._checkpoints.steps()
        self._first_step = steps[-1] if steps else 0
        if not steps:
            self._loop.restart(new_learner(self._job.experiment, self._job.site).state_dict())
        saved = self._load(self._first_step)
        if self._reporter is not None:
            self._reporter.rolled_back(saved, done + 1)

    def close(self) -> None:
        """Ends the threads; what MLflow has not taken stays in the outbox."""
        self._watchdog.close()
        if self._reporter is not None:
            self._reporter.close()
        if self._system is not None:
            self._system.close()
        if self._tracker is not None:
            self._tracker.close(timeout_s=30)

    def _load(self, step: int) -> Note | None:
        """Takes over the checkpoint of `step`, if any; the run's accounts at its moment."""
        facts: dict[str, Any] = {}
        if step:
            checkpoint: Checkpoint = self._checkpoints.load(step)
            facts = checkpoint.facts
            experiment = self._job.experiment
            check_state(
                facts["reader"], self._dataset, experiment.seed, experiment.data.block_shards
            )
            self._loop.load(checkpoint.state)
        self._rollbacks = self._history.rollbacks
        self._loop.scale_lr(0.5**self._rollbacks)
        self._soundness.load(facts.get("losses", ()))
        return Note(**facts["accounts"]) if facts else None

    def _save(self, step: int) -> None:
        """The ledger of all ranks first, then the state by rank 0."""
        if self._ledger is not None:
            self._ledger.flush()
            parallel.barrier()
        if self._reporter is not None:
            assert self._last is not None, "a checkpoint comes after a window of steps"
            facts = {
                "run": self._job.name,
                "reader": self._reader.state(step),
                "classes": self._classes,
                "words": self._dataset.words if self._loop.learner.vocabulary else [],
                "attributes": value_names(self._loop.learner, self._dataset),
                "experiment": plain(self._job.experiment),
                "git": self._job.git,
                "metrics": self._last.metrics,
                "losses": self._soundness.losses,
                "accounts": dataclasses.asdict(self._reporter.note()),
            }
            assert self._tracker is not None
            blocked_s = self._tracker.keep()
            blocked_s += self._saver.save(step, self._loop.state(), facts)
            self._reporter.add("checkpoint", blocked_s)

    def _fit(self) -> None:
        """Has the learner fit what steps do not train, to the codes of the order's first clips.

        All workers compute codes, rank 0 fits them: it alone saves the state.
        """
        learner, data = self._loop.learner, self._job.experiment.data
        if not learner.codes:
            return
        steps = max(1, min(learner.codes, self._dataset.samples) // data.global_batch)
        mine = []
        with closing(self._make_reader().batches(0)) as batches:
            for _ in range(steps):
                batch = next(batches)
                self._watchdog.alive()
                with torch.no_grad(), evaluating(learner):
                    codes = learner.code(to_video(batch.video_bthwc, self._device))
                mine.append(codes[torch.from_numpy(batch.valid_b).to(self._device)].float().cpu())
        by_step = zip(*parallel.gathered(mine), strict=True)  # in order, whatever the world size
        if self._world.rank == 0:
            learner.fit(torch.cat([torch.cat(each) for each in by_step]), self._job.experiment.seed)

    def _interruption(self) -> str | None:
        """What all workers agree to leave for, if anything. Asked at most once a second."""
        nothing, look, stop, superseded = 0, 1, 2, 3
        mine = superseded if self._saver.is_superseded else nothing
        now = time.monotonic()
        if self._world.rank == 0 and not mine and now - self._asked > ASK_EVERY_S:
            self._asked = now
            mine = stop if self._history.asks_to_stop else look
        agreed = parallel.largest(mine)
        if agreed in (stop, superseded):
            return "stop" if agreed == stop else "superseded"
        return "preempted" if agreed == look and self._preempted() else None

    def _noting(self, batches: Iterator[Any]) -> Iterator[Batch]:
        for batch in batches:
            self._watchdog.alive()
            if self._ledger is not None:
                self._ledger.add(batch.step, batch.keys)
            yield batch

    def _new_tracker(self, writer: str, store: Store | None = None) -> Tracker:
        site, name = self._job.site, self._job.name
        return Tracker(
            uri=site.mlflow_uri,
            run=name,
            outbox=site.outbox(name),
            writer=writer,
            store=store,
        )

    def _report(self, saved: Note | None, hosts: list[str]) -> None:
        job = self._job
        self._tracker = self._new_tracker("rank0", self._store)
        self._reporter = Reporter(
            experiment=job.experiment,
            tracker=self._tracker,
            store=self._store,
            loop=self._loop,
            first_step=self._first_step,
            accounts=Accounts.resumed(
                started=self._attempt.started,
                saved=saved,
                last=self._history.last_note,
                command=job.command_at,
                now=time.time(),
            ),
            hosts=hosts,
            flops_per_clip=job.flops_per_clip,
            peak_tflops=self._peak_tflops(),
            keeps_samples=job.report_every is not None,
        )
        self._tracker.tags(
            {
                "orchestrator.attempts": self._attempt.number,
                "orchestrator.workers": self._world.size,
                "orchestrator.resumed_at_step": self._first_step,
            }
        )
        self._reporter.real_clips(self._dataset, job.experiment.seed)
        steps = f"from step {self._first_step} to {job.experiment.budget.steps}"
        print(
            f"{job.name}: attempt {self._attempt.number}, {self._world.size} worker(s), {steps}",
            flush=True,
        )

    def _peak_tflops(self) -> float | None:
        """Of all workers together, in the precision that the run computes in; None if unknown."""
        if self._device.type != "cuda":
            return None
        precision, _ = self._job.experiment.compute.on("cuda")
        one = peak_tflops(torch.cuda.get_device_name(self._device), precision)
        return None if one is None else one * self._world.size


def _make_loop(job: Job, dataset: Dataset, world: World, device: torch.device) -> Loop:
    experiment = job.experiment
    learner = new_learner(experiment, job.site)
    conditions = conditions_of(learner, dataset)
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
        compute=experiment.compute,
        conditions=conditions,
    )
