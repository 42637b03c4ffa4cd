"""Training D, then G against the updated D, on one batch of fakes (VGAN, Section 2.4, Eq. 1).

What the VGAN paper's generating models share: the two phases and their losses. A model brings its
two networks, and says what its fakes are made from and what else than D its generator minds.

Legend: b clips, c colours, t frames, h rows, w columns, k classes (real, fake).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.learner import Learner, frozen

REAL, FAKE = 0, 1


class Adversarial(Learner):
    """Two networks: `generator` gives {"sample": fakes, ...}, `discriminator` logits_bk (B, 2).

    Pass the same noise tensor object to both phases of a step: the fakes and their graph are kept
    from the first for the second. A generator phase of other noise makes its own fakes.
    """

    phases = ("discriminator", "generator")

    def __init__(self, discriminator: nn.Module, generator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self._kept: tuple[Tensor, dict[str, Tensor]] | None = None

    def source(self, video_bcthw: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        """What the generator makes fakes from: the noise, unless a model says otherwise."""
        return noise

    @abstractmethod
    def penalties(
        self, fakes: dict[str, Tensor], video_bcthw: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """What the generator's loss adds to its cross entropy: (weight, scalar) by name."""

    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor, **_: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The phase's loss, a mean over the clips, and its metrics, detached scalars.

        discriminator: d_loss = CE(real) + CE(fake), summed (the authors' log prints half of it);
            d_real and d_fake, D's mean probability of "real" on real clips and on fakes.
        generator: g_loss, all that is minimised; the model's penalties, before their weights.
        """
        match phase:
            case "discriminator":
                return self._discriminator_loss(video_bcthw, noise)
            case "generator":
                return self._generator_loss(video_bcthw, noise)
        raise ValueError(f"phase={phase!r}: VGAN has the phases {', '.join(self.phases)}")

    def _discriminator_loss(
        self, video_bcthw: Tensor, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        fakes = self.call("generator", self.source(video_bcthw, noise))
        self._kept = (noise, fakes)
        # Two forwards, not one of both: batch-norm normalises reals and fakes apart, as the code.
        real_bk = self.call("discriminator", video_bcthw)
        fake_bk = self.call("discriminator", fakes["sample"].detach())
        loss = _cross_entropy(real_bk, REAL) + _cross_entropy(fake_bk, FAKE)
        return loss, {
            "d_loss": loss.detach(),
            "d_real": _probability_real(real_bk),
            "d_fake": _probability_real(fake_bk),
        }

    def _generator_loss(
        self, video_bcthw: Tensor, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        (kept_noise, fakes), self._kept = self._kept or (None, {}), None
        if kept_noise is not noise:
            fakes = self.call("generator", self.source(video_bcthw, noise))
        # The bare module: D's parameters take no gradient here, so there is none to synchronise.
        with frozen(self.discriminator):
            loss = _cross_entropy(self.discriminator(fakes["sample"]), REAL)
        metrics: dict[str, Tensor] = {}
        for name, (weight, penalty) in self.penalties(fakes, video_bcthw).items():
            loss = loss + weight * penalty
            metrics[name] = penalty.detach()
        return loss, {"g_loss": loss.detach(), **metrics}


def mask_mean(fakes: dict[str, Tensor]) -> Tensor:
    """The mask's mean over clips and pixels, in [0, 1]: the sparsity prior of Section 2.2."""
    return fakes["mask"].mean(dtype=torch.float32)


def as_pictures(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """A generator's output as videos of one shape in [-1, 1]: the mask as grey, 2m - 1."""
    if "mask" in parts:
        parts = parts | {"mask": 2 * parts["mask"] - 1}
    return {name: part.expand_as(parts["sample"]) for name, part in parts.items()}


def _cross_entropy(logits_bk: Tensor, label: int) -> Tensor:
    """Mean over b of -log softmax(logits)[label]."""
    return F.cross_entropy(logits_bk, logits_bk.new_full((len(logits_bk),), label).long())


def _probability_real(logits_bk: Tensor) -> Tensor:
    """D's mean probability of "real", a detached scalar."""
    return logits_bk.detach().float().softmax(1)[:, REAL].mean()
