"""What a training loop asks of a model: losses by phase, noise by shape, samples by name.

Legend: B clips, C channels, T frames, H rows, W columns. Videos are float in [-1, 1].

A learner owns the paper's networks and formulas, and nothing else: no optimiser, no device, no
process group. Training one step means: for every phase, in order, take `loss(phase, ...)`, step the
optimiser of the child module that bears the phase's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Wrap = Callable[[nn.Module], Callable[..., Any]]


class Learner(nn.Module, ABC):
    """Base of every paper's learner.

    phases: the names of the child modules that are trained, in the order of their updates.
    """

    phases: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, Callable[..., Any]] = {}

    @abstractmethod
    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """The latents of `count` samples, float32 on the CPU, samples first.

        All randomness of a step comes from here, so that it can be drawn for the global batch and
        sliced, whatever the number of workers.
        """

    @abstractmethod
    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(the phase's loss, a mean over the B samples; its metrics, detached scalars)."""

    @abstractmethod
    def sample(self, noise: Tensor) -> dict[str, Tensor]:
        """Named videos (B, C, T, H, W) in [-1, 1] for pictures: always `sample`, and the parts.

        Uses running statistics and leaves the module's mode as it was.
        """

    def parallelize(self, wrap: Wrap) -> None:
        """Has the networks of the phases called through `wrap`, as DDP; names stay."""
        self._calls = {name: wrap(self.get_submodule(name)) for name in self.phases}

    @contextmanager
    def local_gradients(self) -> Iterator[None]:
        """Within, losses and their gradients stay this worker's own: a later loss sends the sum."""
        with ExitStack() as stack:
            for call in self._calls.values():
                if hasattr(call, "no_sync"):
                    stack.enter_context(call.no_sync())
            yield

    def call(self, name: str, *inputs: Tensor) -> Any:
        """Forward of the child `name`, through its wrapper where there is one.

        The output is what DDP looks through: a tensor, or a tuple, list or dict of tensors.
        """
        return self._calls.get(name, self.get_submodule(name))(*inputs)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within, forward passes of `module` build a graph to their inputs, none to its parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
