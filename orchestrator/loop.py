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
from orchestrator.config import Budget, Optim


class Batch(Protocol):
    """What the loop reads of a reader's batch."""

    step: int
    video_bthwc: np.ndarray[Any, np.dtype[np.uint8]]
    valid_b: np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class World:
    """This worker's place among the others, and what it can ask of them.

    wrap: makes a network's gradients the mean over workers; None for one worker.
    mean: the mean of a tensor over the workers.
    """

    rank: int = 0
    size: int = 1
    wrap: Wrap | None = None
    mean: Callable[[Tensor], Tensor] = lambda tensor: tensor


@dataclass(frozen=True, kw_only=True)
class StepsDone:
    """A window of steps is over; `step` steps are done in all. Seconds are of this worker."""

    step: int
    steps: int
    metrics: dict[str, float]
    data_wait_s: float
    compute_s: float


@dataclass(frozen=True, kw_only=True)
class CheckpointDue:
    """`step` steps are done and the state is worth keeping."""

    step: int


@dataclass(frozen=True, kw_only=True)
class SamplesDue:
    """`step` steps are done and a look at the samples is due."""

    step: int


Event = StepsDone | CheckpointDue | SamplesDue


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


@dataclass(kw_only=True)
class _Window:
    """What happened since the last StepsDone; metrics stay on the device until it is over."""

    metrics: list[dict[str, Tensor]] = field(default_factory=list)
    data_wait_s: float = 0.0
    compute_s: float = 0.0

    def mean(self, world: World) -> dict[str, float]:
        names = sorted({name for metrics in self.metrics for name in metrics})
        columns = [[m[name].float() for m in self.metrics if name in m] for name in names]
        means = torch.stack([torch.stack(column).mean() for column in columns])
        return dict(zip(names, world.mean(means).tolist(), strict=True))


class Loop:
    """Trains a learner for a budget of steps. Its whole state is `state()` and the step number."""

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
    ) -> None:
        self.learner = learner.to(device).train()
        if world.wrap is not None:
            learner.parallelize(world.wrap)
        self.optimizers = {
            phase: torch.optim.Adam(
                learner.get_submodule(phase).parameters(),
                lr=optim.lr,
                betas=(optim.beta1, optim.beta2),
                eps=optim.eps,
                fused=device.type == "cuda",
            )
            for phase in learner.phases
        }
        self._lr = optim.lr
        self._budget = budget
        self._seed = seed
        self._global_batch = global_batch
        self._device = device
        self._world = world

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
                yield StepsDone(
                    step=done,
                    steps=len(window.metrics),
                    metrics=window.mean(self._world),
                    data_wait_s=window.data_wait_s,
                    compute_s=window.compute_s,
                )
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
        return rows[first : first + count].to(self._device, non_blocking=True)

    def fixed_noise(self, count: int) -> Tensor:
        """The noise of the sample grids: the same all through a run."""
        return self.learner.noise(count, keyed_generator(self._seed, "samples", 0)).to(self._device)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        video_bcthw = to_video(batch.video_bthwc, self._device)
        noise = self.noise(batch.step, len(video_bcthw))
        # DDP and the metrics take the plain mean over workers; this weight makes it the mean over
        # the global batch when slices differ by one, and a quarantined clip count for nothing.
        valid = int(batch.valid_b.sum())
        weight = valid * self._world.size / self._global_batch
        if valid < len(video_bcthw):
            keep = torch.from_numpy(np.flatnonzero(batch.valid_b)).to(self._device)
            if valid:
                video_bcthw, noise = video_bcthw[keep], noise[keep]
        metrics: dict[str, Tensor] = {}
        for phase in self.learner.phases:
            loss, values = self.learner.loss(phase, video_bcthw, noise)
            self.optimizers[phase].zero_grad(set_to_none=True)
            (loss * weight).backward()  # type: ignore[no-untyped-call]
            self.optimizers[phase].step()
            metrics |= {name: value * weight for name, value in values.items()}
        return metrics
