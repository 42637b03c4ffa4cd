"""What a training loop asks of a model: losses by phase, noise by shape, samples by name.

Legend: B clips, C channels, T frames, H rows, W columns. Videos are float in [-1, 1].

A learner owns the paper's networks and formulas, and nothing else: no optimiser, no device, no
process group. Training one step means: for every phase, in order, take `loss(phase, ...)`, step the
optimiser of the child module that bears the phase's name. What is fitted once, when the steps are
over, is fitted to the codes of many clips (`code`, `fit`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Wrap = Callable[[nn.Module], Callable[..., Any]]
Kind = Literal["generator", "autoencoder", "future", "drawing", "classifier", "reader"]


class Learner(nn.Module, ABC):
    """Base of every paper's learner.

    kind: what it is for: a "drawing" is a generator that fills a canvas, of captions where it has
    conditions; a "reader" says which of several things a clip shows.
    phases: the names of the child modules that are trained, in the order of their updates.
    conditions: what `loss` takes of a clip besides its pixels, as keywords, one of: "label_b",
    int64; "joint_b", int64; "attributes_ba", int64 (B, A), -1 unknown; "caption_bl", int64 (B,
    words); "sentence_bd", float32; "scene_bk", float32 (B, K). `sample` is given them too.
    needs_clips: whether `sample` shows real clips too, or what it makes of them.
    goes_on: whether `sample` can go on from clips' first frames; every "future" does.
    needs_weights: whether it must begin from another run's (`adopt`).
    classes: how many probabilities `predict` gives. values: of each attribute in
    `attributes_ba`, how many it may have. without: an attribute that `joint_b` leaves out.
    vocabulary, words: how many words `caption_bl` can tell apart, padding included, and has at
    most. language: numbers of a `sentence_bd`. codes: how many clips' codes `fit` wants; 0 for a
    learner that fits nothing.
    """

    kind: Kind = "generator"
    phases: tuple[str, ...]
    conditions: tuple[str, ...] = ()
    needs_clips: bool = False
    goes_on: bool = False
    needs_weights: bool = False
    classes: int = 0
    values: tuple[int, ...] = ()
    without: str = ""
    vocabulary: int = 0
    words: int = 0
    language: int = 0
    codes: int = 0

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, Callable[..., Any]] = {}

    def noise(self, count: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The latents of `count` samples, float32 on the CPU, samples first.

        All randomness of a step comes from here, dropout's too, so that it can be drawn for the
        global batch and sliced, whatever the number of workers. (count, 0) where there is none.
        """
        return torch.empty(count, 0)

    @abstractmethod
    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor, **conditions: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(the phase's loss, a mean over the B samples; its metrics, detached scalars)."""

    @abstractmethod
    def sample(
        self, noise: Tensor, video_bcthw: Tensor | None = None, **conditions: Tensor
    ) -> dict[str, Tensor]:
        """Named videos (B, C, T, H, W) in [-1, 1] for pictures: always `sample`, and the parts.

        video_bcthw: real clips, as many as noise, for a learner with `needs_clips`.
        Uses running statistics and leaves the module's mode as it was.
        """

    def adopt(self, weights: dict[str, Tensor]) -> None:
        """Begins from another learner's weights instead of random ones: its own kind's, or what it
        can use of them. Raises ValueError where they do not fit, naming what does not.
        """
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        theirs = {name: tensor.shape for name, tensor in weights.items()}
        wrong = sorted({name for name, _ in shapes.items() ^ theirs.items()})
        if wrong:
            raise ValueError(f"{len(wrong)} weights of another model, the first is {wrong[0]}")
        self.load_state_dict(weights)

    def code(self, video_bcthw: Tensor) -> Tensor:
        """(B, K) float32 codes of clips, for `fit`."""
        raise NotImplementedError(f"{type(self).__name__} has no codes")

    def fit(self, code_nk: Tensor, seed: int) -> None:
        """Fits what is not trained by steps to the codes, and keeps it in buffers."""
        raise NotImplementedError(f"{type(self).__name__} fits nothing")

    def predict(self, video_bcthw: Tensor) -> Tensor:
        """(B, classes) float32 probabilities of a clip's classes, as if nothing else were given."""
        raise NotImplementedError(f"{type(self).__name__} tells no classes apart")

    @property
    def detectors(self) -> nn.Sequential | None:
        """The row of convolutions, of clips (B, 3, T, H, W) or of first frames (B, 3, H, W), whose
        units can be asked what they fire on (`models.units`); None where there is none."""
        return None

    def blank(self, count: int) -> dict[str, Tensor]:
        """Conditions of the right shapes that say nothing: what a step costs needs no more."""
        return dict.fromkeys(self.conditions, torch.zeros(count, dtype=torch.int64))

    def settle(self) -> None:
        """Goes to the stage that most steps are in, for a learner that is trained in stages: what a
        step costs is asked of that one."""

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


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, `module` is in eval mode; afterwards every part has the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
