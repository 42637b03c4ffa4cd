"""The ways to compute VGAN's step that are held against each other, and how each is timed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from step.plain import PlainTrainer, as_a_loader_gives

from models.vgan import Vgan, VganConfig
from orchestrator.config import Budget, Compute, Optim
from orchestrator.loop import Loop, StepsDone, World, keyed_generator

Losses = Callable[[], dict[str, float]]

WINDOWS, HELD, REFERENCE = 3, 4, "fp32"
LAST = 10**6  # the step whose clips and noise every first step takes, whatever comes after it
# Relative to the loop in fp32, on the first step: rounding of sums, of 10 bits, and of 8.
TOLERANCE = {"fp32": 2e-3, "tf32": 1e-2, "bf16": 3e-2}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compute the step; compute None is the plain port's.

    graphs: torch.compile records the networks as CUDA graphs.
    """

    precision: str
    compute: Compute | None = None
    graphs: bool = False


def _ours(precision: Any, *, last: bool = False, fuse: bool = False) -> Variant:
    compute = Compute(precision=precision, channels_last=last, compile=fuse)
    return Variant(precision=precision, compute=compute)


VARIANTS = {
    "plain": Variant(precision="fp32"),
    "plain, TF32 in cuDNN": Variant(precision="tf32"),  # torch's default flags
    "fp32": _ours("fp32"),
    "tf32": _ours("tf32"),
    "bf16": _ours("bf16"),
    "bf16 channels-last": _ours("bf16", last=True),
    "bf16 channels-last compile": _ours("bf16", last=True, fuse=True),
    "bf16 channels-last graphs": Variant(
        precision="bf16", compute=Compute(precision="bf16", channels_last=True), graphs=True
    ),
}


@dataclass(kw_only=True)
class Clips:
    """What the loop reads of a reader's batch."""

    step: int
    video_bthwc: NDArray[np.uint8]
    valid_b: NDArray[np.bool_]


class Subject:
    """One variant at one batch size: `first()` is its first step, `window()` takes `steps` more.

    Both return losses, and so end when the device is done.
    """

    def __init__(
        self, variant: Variant, *, device: str, width: int, batch: int, steps: int
    ) -> None:
        self.device = torch.device(device)
        self.variant, self.batch, self.steps = variant, batch, steps
        self.last = LAST
        shape = (HELD, batch, *VganConfig().clip_shape)
        self.held = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        torch.manual_seed(0)
        self.learner: Vgan = VganConfig(width=width).build()
        self.first, self.window = self._plain() if variant.compute is None else self._loop()

    def _plain(self) -> tuple[Losses, Losses]:
        torch.backends.cudnn.allow_tf32 = self.variant.precision == "tf32"
        torch.backends.cudnn.benchmark = True  # the ports that follow DCGAN's example set it
        held = [as_a_loader_gives(video) for video in self.held]
        noise = self.learner.noise(self.batch, keyed_generator(0, "noise", self.last))
        trainer = PlainTrainer(self.learner, self.device)

        def window() -> dict[str, float]:
            losses = [trainer.step(held[n % HELD], noise) for n in range(self.steps)]
            return losses[-1]

        return lambda: trainer.step(held[self.last % HELD], noise), window

    def _loop(self) -> tuple[Losses, Losses]:
        assert self.variant.compute is not None
        if self.variant.graphs:
            for phase in self.learner.phases:
                self.learner.get_submodule(phase).compile(mode="reduce-overhead")
        loop = Loop(
            self.learner,
            optim=Optim(),
            budget=Budget(steps=self.last + 1, log_every=self.steps, checkpoint_every=10**9),
            seed=0,
            global_batch=self.batch,
            device=self.device,
            world=World(),
            compute=self.variant.compute,
        )
        events = (e for e in loop.run(self._clips(0), 0) if isinstance(e, StepsDone))

        def first() -> dict[str, float]:  # the budget's last step, so that the loop tells it alone
            event = next(iter(loop.run(self._clips(self.last), self.last)))
            assert isinstance(event, StepsDone)
            return event.metrics

        return first, lambda: next(events).metrics

    def _clips(self, step: int) -> Iterator[Clips]:
        valid_b = np.ones(self.batch, dtype=np.bool_)
        while True:
            if self.variant.graphs:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            yield Clips(step=step, video_bthwc=self.held[step % HELD], valid_b=valid_b)
            step += 1


def measure(subject: Subject) -> dict[str, Any]:
    """Seconds a step, the first step's losses, and the device memory it took."""
    gpu = subject.device.type == "cuda"
    first = subject.first()
    subject.window()  # warms up
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, metrics = [], dict[str, float]()
    for _ in range(WINDOWS):
        started = time.perf_counter()
        metrics = subject.window()
        seconds.append((time.perf_counter() - started) / subject.steps)
    return {
        "batch": subject.batch,
        "step_s": statistics.median(seconds),
        "first": {name: first[name] for name in ("d_loss", "g_loss")},
        "finite": all(map(math.isfinite, [*first.values(), *metrics.values()])),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if gpu else None,
    }
