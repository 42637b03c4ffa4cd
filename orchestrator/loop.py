"""The training loop: plain PyTorch, told what to do by values, telling what happened by events.

It knows neither Ray, MLflow nor paths. Noise is keyed by (seed, step), drawn for the global batch
and sliced by rank, so no RNG state has to be saved and the world size does not enter it.

Legend: B clips of this worker, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.learner import Learner, Wrap
from orchestrator.config import Budget, Compute, Optim


class Batch(Protocol):
    """What the loop reads of a reader's batch."""

    step: int
    video_bthwc: np.ndarray[Any, np.dtype[np.uint8]]
    valid_b: np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class World:
    """This worker's place among the others, and what it can ask of them.

    wrap: makes a network's gradients the mean over workers; None for one worker.
    sum: the sum of a tensor over the workers.
    collective_s: the seconds since it was last asked that this worker waited for the others, or
    for the network, with no compute of its own to do. Call it when the device is idle.
    """

    rank: int = 0
    size: int = 1
    wrap: Wrap | None = None
    sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
    collective_s: Callable[[], float] = lambda: 0.0


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a window's seconds of one worker went to; compute leaves the collectives out.

    device_gib: the most device memory that tensors have held since the start; 0 on a CPU.
    """

    compute_s: float
    collective_s: float
    data_wait_s: float
    device_gib: float


@dataclass(frozen=True, kw_only=True)
class StepsDone:
    """A window of steps is over; `step` steps are done in all. spent: of every worker, by rank."""

    step: int
    steps: int
    metrics: dict[str, float]
    spent: tuple[Spent, ...]


@dataclass(frozen=True, kw_only=True)
class CheckpointDue:
    """`step` steps are done and the state is worth keeping."""

    step: int


@dataclass(frozen=True, kw_only=True)
class SamplesDue:
    """`step` steps are done and a look at the samples is due."""

    step: int


Event = StepsDone | CheckpointDue | SamplesDue


Conditions = Callable[[Any], dict[str, np.ndarray[Any, Any]]]


def keyed_generator(seed: int, stream: str, step: int) -> torch.Generator:
    """A CPU generator that is a pure function of (seed, stream, step)."""
    digest = hashlib.sha256(f"{seed}/{stream}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def to_video(video_bthwc: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device) -> Tensor:
    """uint8 (B, T, H, W, C) to float (B, C, T, H, W) in [-1, 1], scaled on the device."""
    tensor = torch.from_numpy(video_bthwc)
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1.0)


def _channels_last(learner: Learner) -> None:
    """Lays the weights of 2-d and 3-d convolutions out with their channels last, in place."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in learner.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


@dataclass(kw_only=True)
class _Window:
    """What happened since the last StepsDone; metrics stay on the device until it is over."""

    metrics: list[dict[str, Tensor]] = field(default_factory=list)
    data_wait_s: float = 0.0
    compute_s: float = 0.0

    def done(self, step: int, world: World, device: torch.device) -> StepsDone:
        """The window's event, the same on every worker: one wait for the device, one collective."""
        started = time.perf_counter()
        names = sorted({name for metrics in self.metrics for name in metrics})
        columns = [[m[name].float() for m in self.metrics if name in m] for name in names]
        means = torch.stack([torch.stack(column).mean() for column in columns])
        gpu = device.type == "cuda"
        if gpu:  # what was only queued is computed here
            torch.cuda.synchronize(device)
        self.compute_s += time.perf_counter() - started
        collective_s = min(world.collective_s(), self.compute_s)
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if gpu else 0.0
        spent = torch.zeros(world.size, 4)
        spent[world.rank] = torch.tensor(
            [self.compute_s - collective_s, collective_s, self.data_wait_s, memory]
        )
        flat = torch.cat([means / world.size, spent.to(device).flatten()])
        told = world.sum(flat).tolist()
        rows = torch.tensor(told[len(names) :]).view(world.size, 4).tolist()
        return StepsDone(
            step=step,
            steps=len(self.metrics),
            metrics=dict(zip(names, told, strict=False)),
            spent=tuple(Spent(**dict(zip(_SPENT, row, strict=True))) for row in rows),
        )


_SPENT = ("compute_s", "collective_s", "data_wait_s", "device_gib")


class Loop:
    """Trains a learner for a budget of steps. Its whole state is `state()` and the step number.

    conditions: what the learner's losses take of a batch besides its pixels, clips first.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        optim: Optim,
        budget: Budget,
        seed: int,
        global_batch: int,
        device: torch.device,
        world: World,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        conditions: Conditions = lambda _batch: {},
    ) -> None:
        self._precision, channels_last = compute.on(device.type)
        self._format = torch.channels_last_3d if channels_last else torch.contiguous_format
        if device.type == "cuda":
            exact = self._precision == "fp32"
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
            torch.backends.cudnn.benchmark = True  # a run's shapes stay the same
        self.learner = learner.to(device).train()
        if channels_last:
            _channels_last(learner)
        if compute.compile:
            for phase in learner.phases:
                learner.get_submodule(phase).compile()
        if world.wrap is not None:
            learner.parallelize(world.wrap)
        self.optimizers = {
            phase: torch.optim.Adam(
                learner.get_submodule(phase).parameters(),
                lr=optim.lr,
                betas=(optim.beta1, optim.beta2),
                eps=optim.eps,
                weight_decay=optim.weight_decay,
                fused=True,
            )
            for phase in learner.phases
        }
        self._lr = optim.lr
        self._clip_norm = optim.clip_norm
        self._budget = budget
        self._seed = seed
        self._global_batch = global_batch
        self.device = device
        self._world = world
        self._parts = compute.accumulate
        self._conditions = conditions

    def state(self) -> dict[str, Any]:
        """Weights, buffers and optimiser moments; with the step number, all there is to save."""
        optimizers = {phase: opt.state_dict() for phase, opt in self.optimizers.items()}
        return {"learner": self.learner.state_dict(), "optimizers": optimizers}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over what `state` returned, on any device."""
        self.learner.load_state_dict(state["learner"])
        for phase, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][phase])

    def restart(self, weights: dict[str, Any]) -> None:
        """Back to step 0: these weights, and optimisers that remember nothing."""
        self.learner.load_state_dict(weights)
        for optimizer in self.optimizers.values():
            optimizer.state.clear()

    def scale_lr(self, factor: float) -> None:
        """Sets every learning rate to `factor` times the experiment's."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self._lr * factor

    def run(self, batches: Iterator[Batch], first_step: int) -> Iterator[Event]:
        """Steps `first_step` (0-based) to the budget's end, as events; the last is a checkpoint.

        batches: this worker's slices, beginning with the one of `first_step`. A StepsDone comes
        before the CheckpointDue and SamplesDue of the same step.
        """
        budget, window = self._budget, _Window()
        for step in range(first_step, budget.steps):
            started = time.perf_counter()
            batch = next(batches)
            assert batch.step == step, f"the reader is at step {batch.step}, the loop at {step}"
            fetched = time.perf_counter()
            window.metrics.append(self._step(batch))
            window.data_wait_s += fetched - started
            window.compute_s += time.perf_counter() - fetched
            done = step + 1
            last = done == budget.steps
            checkpoint = last or done % budget.checkpoint_every == 0
            samples = last or done % budget.samples_every == 0
            if last or checkpoint or done % budget.log_every == 0:
                yield window.done(done, self._world, self.device)
                window = _Window()
            if samples:
                yield SamplesDue(step=done)
            if checkpoint:
                yield CheckpointDue(step=done)

    def noise(self, step: int, count: int) -> Tensor:
        """This worker's rows of the global batch's noise of `step`."""
        generator = keyed_generator(self._seed, "noise", step)
        rows = self.learner.noise(self._global_batch, generator)
        first = self._world.rank * self._global_batch // self._world.size
        return rows[first : first + count].to(self.device, non_blocking=True)

    def fixed_noise(self, count: int) -> Tensor:
        """The noise of the sample grids: the same all through a run."""
        return self.learner.noise(count, keyed_generator(self._seed, "samples", 0)).to(self.device)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of every phase; its metrics, detached and on the device. Never waits for it."""
        video_bcthw = to_video(batch.video_bthwc, self.device).contiguous(
            memory_format=self._format
        )
        noise = self.noise(batch.step, len(video_bcthw))
        given = {"video_bcthw": video_bcthw, "noise": noise}
        for name, values in self._conditions(batch).items():
            given[name] = torch.from_numpy(values).to(self.device, non_blocking=True)
        valid = int(batch.valid_b.sum())
        if 0 < valid < len(video_bcthw):  # a quarantined clip counts for nothing
            keep = torch.from_numpy(np.flatnonzero(batch.valid_b)).to(self.device)
            given = {name: tensor[keep] for name, tensor in given.items()}
        parts = [given]
        if valid and self._parts > 1:
            count = min(self._parts, valid)
            split = {name: tensor.tensor_split(count) for name, tensor in given.items()}
            parts = [{name: each[n] for name, each in split.items()} for n in range(count)]
        metrics: dict[str, Tensor] = {}
        for phase in self.learner.phases:
            self.optimizers[phase].zero_grad(set_to_none=True)
            for part in parts[:-1]:
                with self.learner.local_gradients():
                    self._backward(phase, part, metrics, len(part["noise"]))
            last = len(parts[-1]["noise"]) if valid else 0
            self._backward(phase, parts[-1], metrics, last)
            if self._clip_norm is not None:
                for parameter in self.learner.get_submodule(phase).parameters():
                    torch.nn.utils.clip_grad_norm_(parameter, self._clip_norm, foreach=False)
            self.optimizers[phase].step()
        return metrics

    def _backward(
        self, phase: str, part: dict[str, Tensor], metrics: dict[str, Tensor], valid: int
    ) -> None:
        """Adds the gradients of a part of the slice, and what it says, for `valid` of its clips."""
        # DDP and the metrics take the plain mean over workers; this weight makes it the mean over
        # the global batch, also when slices differ by one.
        weight = valid * self._world.size / self._global_batch
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16"
        ):
            loss, values = self.learner.loss(phase, **part)
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        for name, value in values.items():
            metrics[name] = metrics[name] + value * weight if name in metrics else value * weight
