"""What a step of an experiment costs, before it runs: operations and memory, counted, not guessed.

The learner is built without storage (torch's `meta` device) and taken through whole steps as the
loop takes it, so any learner is counted and no width is too large. FLOPs are torch's own count: two
for a multiply-add of convolutions and matrix products, nothing for the rest. Memory is the most
that live tensors hold at once in float32 (Adam's moments included); a convolution's workspace, the
allocator's slack and the device's context come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from models.learner import Learner

_ADAM_MOMENTS = 2


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One training step, all phases, forward and backward.

    flops_per_clip: by phase. weights, gradients, adam: bytes, whatever the batch.
    activations_per_clip: bytes that each clip adds to the peak (its pixels included).
    activations_fixed: bytes of the peak that neither the batch nor the above explain.
    checkpoint_bytes: weights, buffers and Adam's moments, as a checkpoint stores them.
    """

    flops_per_clip: dict[str, int]
    weights: int
    gradients: int
    adam: int
    activations_per_clip: int
    activations_fixed: int
    checkpoint_bytes: int

    @property
    def flops(self) -> int:
        """FLOPs of one clip's part of a step."""
        return sum(self.flops_per_clip.values())

    def peak_bytes(self, clips: int) -> int:
        """The memory estimate of one worker with `clips` clips a step."""
        fixed = self.weights + self.gradients + self.adam + self.activations_fixed
        return fixed + clips * self.activations_per_clip


def step_cost(build: Callable[[], Learner], clip_shape: tuple[int, int, int, int]) -> StepCost:
    """Counts a step of the learner that `build` makes on clips of (T, H, W, C).

    A learner that looks at values (`.item()`), which `meta` does not have, is counted on the CPU.
    """
    try:
        return _count(build, clip_shape, torch.device("meta"))
    except (RuntimeError, NotImplementedError):
        return _count(build, clip_shape, torch.device("cpu"))


def _count(
    build: Callable[[], Learner], clip_shape: tuple[int, int, int, int], device: torch.device
) -> StepCost:
    with device, torch.random.fork_rng(devices=[]):
        learner = build().to(device).train()
    learner.settle()
    trained = [p for phase in learner.phases for p in learner.get_submodule(phase).parameters()]
    weights = sum(_nbytes(t) for t in learner.state_dict().values())
    gradients = sum(_nbytes(p) for p in trained)
    adam = _ADAM_MOMENTS * gradients
    # The peak is a line through two batches: on meta they cost nothing, so they are real ones.
    small, large = (16, 32) if device.type == "meta" else (2, 4)
    low = _steps(learner, clip_shape, small, device)
    high = _steps(learner, clip_shape, large, device)
    per_clip = (high.peak - low.peak) // (large - small)
    return StepCost(
        flops_per_clip={phase: count // small for phase, count in low.flops.items()},
        weights=weights,
        gradients=gradients,
        adam=adam,
        activations_per_clip=per_clip,
        activations_fixed=max(0, low.peak - small * per_clip - gradients),
        checkpoint_bytes=weights + adam,
    )


@dataclass(frozen=True, kw_only=True)
class _Steps:
    flops: dict[str, int]
    peak: int


def _steps(
    learner: Learner, clip_shape: tuple[int, int, int, int], clips: int, device: torch.device
) -> _Steps:
    """Two steps, as the loop's; the FLOPs of the second, and the peak with all gradients there."""
    T, H, W, C = clip_shape
    flops: dict[str, int] = {}
    learner.zero_grad(set_to_none=True)
    generator = torch.Generator().manual_seed(0)
    with _Peak() as peak:
        for _ in range(2):
            noise = learner.noise(clips, generator).to(device)
            video_bcthw = torch.zeros(clips, C, T, H, W, device=device)
            conditions = {name: given.to(device) for name, given in learner.blank(clips).items()}
            for phase in learner.phases:
                with FlopCounterMode(display=False) as counter:
                    loss, _ = learner.loss(phase, video_bcthw, noise, **conditions)
                    learner.get_submodule(phase).zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                flops[phase] = counter.get_total_flops()
                del loss
    learner.zero_grad(set_to_none=True)
    return _Steps(flops=flops, peak=peak.most)


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, follows every storage that comes and goes; `most` is what was alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {id(t.untyped_storage()) for t in _tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if id(storage) not in before:  # a view or in-place result is no new memory
                self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_: Any) -> None:
            del self._alive[key]
            self._now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._now += size
        self.most = max(self.most, self._now)


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map_only(Tensor, found.append, tree)
    return found


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
