"""Generating Videos with Scene Dynamics (Vondrick, Pirsiavash, Torralba, NIPS 2016): VGAN.

"Section" and "Eq." refer to the paper; "code" is the authors' release, cvondrick/videogan main.lua.

Legend: b clips, d latents, c colours, t frames, h rows, w columns, k classes (real, fake).
Videos are float in [-1, 1], 32 frames of 64x64, RGB; the mask is in [0, 1].

Where paper and code differ, or this file differs from both:
- Mask prior: the paper prints lambda ||m||_1, a sum; the code divides by the number of elements.
  We take lambda * mean(m), as the code: the sum would weigh 131,072 times more and empty the mask.
- Generator's loss: Eq. 1 prints log(1 - D(G(z))); the code minimises -log D(G(z)), as we do, which
  has a gradient also where D wins.
- Discriminator's output: two logits and cross entropy (the code's "more numerically stable" form),
  not one sigmoid. Batch-norm eps is 1e-3 in D and 1e-5 in G, as the code.
- Batch-norm weights start as N(1, 0.02), as the code; the paper speaks of N(0, 0.01) for weights.
- The code's G step takes the loss from D's logits before D's update and the gradient from D's
  weights after it. We evaluate D anew after its update, on the same fakes: loss and gradient agree.
  D's running averages thereby see the fakes twice in a step; its training never reads them.
- The one-stream generator is in the paper only (Section 2.2): f(z) with tanh is the video.
- `width` (64 in the paper) scales every layer, so that a laptop can train a narrow model.
- The code drops the batch axis of one clip (nn.Squeeze); we keep it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.learner import Learner, evaluating, frozen

REAL, FAKE = 0, 1


@dataclass(frozen=True, kw_only=True)
class VganConfig:
    """The networks' shape and the prior's weight; the defaults are the paper's.

    two_stream: moving foreground over a static background (Eq. 2), or one stream (Section 2.2).
    width: channels of G's last hidden and D's first layer; the deepest layers have 8 times as many.
    latent: dimensions of z.
    mask_lambda: weight of the mask's mean in G's loss; without effect on one stream.
    frames, size: what five layers of kernel 4 and stride 2 make; they cannot be set.
    """

    frames: ClassVar[int] = 32
    size: ClassVar[int] = 64

    two_stream: bool = True
    width: int = 64
    latent: int = 100
    mask_lambda: float = 0.1

    def __post_init__(self) -> None:
        for name in ("width", "latent"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be an integer of 1 or more")
        if not 0 <= self.mask_lambda < float("inf"):
            raise ValueError(f"mask_lambda={self.mask_lambda!r}: must be finite, 0 or more")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, 3)

    def build(self) -> Vgan:
        """The learner, freshly initialised from torch's default generator."""
        return Vgan(self)


class StaticStream(nn.Module):
    """b(z) of Eq. 2: z_bd (B, latent) -> a still of (B, 3, 1, 64, 64) in [-1, 1]."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(pairwise((latent, *_narrowing(width)))):
            conv = nn.ConvTranspose2d(c_in, c_out, 4, *((2, 1) if i else (1, 0)))
            layers += [conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())

    def forward(self, z_bd: Tensor) -> Tensor:
        image_bchw: Tensor = self.layers(z_bd[:, :, None, None])
        return image_bchw[:, :, None]


class VideoStream(nn.Module):
    """f(z) and m(z) of Eq. 2, which share all layers but the last.

    z_bd (B, latent) -> foreground (B, 3, 32, 64, 64) in [-1, 1], and with `masked` the mask
    (B, 1, 32, 64, 64) in [0, 1], else None. Alone it is the paper's one-stream generator.
    """

    def __init__(self, latent: int, width: int, *, masked: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(pairwise((latent, *_narrowing(width)))):
            conv = nn.ConvTranspose3d(c_in, c_out, *((4, 2, 1) if i else ((2, 4, 4),)))
            layers += [conv, nn.BatchNorm3d(c_out), nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers)
        self.foreground = nn.Sequential(nn.ConvTranspose3d(width, 3, 4, 2, 1), nn.Tanh())
        self.mask = (
            nn.Sequential(nn.ConvTranspose3d(width, 1, 4, 2, 1), nn.Sigmoid()) if masked else None
        )

    def forward(self, z_bd: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden_bcthw = self.trunk(z_bd[:, :, None, None, None])
        mask_b1thw = None if self.mask is None else self.mask(hidden_bcthw)
        return self.foreground(hidden_bcthw), mask_b1thw


class Generator(nn.Module):
    """z_bd (B, latent) -> {"sample": (B, 3, 32, 64, 64) in [-1, 1]}.

    With two streams also what Eq. 2 composes: "foreground", "mask" (one channel in [0, 1]) and
    "background" (one frame).
    """

    def __init__(self, config: VganConfig) -> None:
        super().__init__()
        self.video = VideoStream(config.latent, config.width, masked=config.two_stream)
        self.static = StaticStream(config.latent, config.width) if config.two_stream else None
        self.apply(initialise)

    def forward(self, z_bd: Tensor) -> dict[str, Tensor]:
        f_bcthw, m_b1thw = self.video(z_bd)
        if self.static is None:
            return {"sample": f_bcthw}
        b_bc1hw = self.static(z_bd)
        video_bcthw = m_b1thw * f_bcthw + (1 - m_b1thw) * b_bc1hw  # Eq. 2
        return {
            "sample": video_bcthw,
            "foreground": f_bcthw,
            "mask": m_b1thw,
            "background": b_bc1hw,
        }


class Discriminator(nn.Module):
    """Section 2.3: video_bcthw (B, 3, 32, 64, 64) -> logits_bk (B, 2), classes REAL and FAKE."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv3d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for c_in, c_out in pairwise(reversed(_narrowing(width))):
            layers += [nn.Conv3d(c_in, c_out, 4, 2, 1), nn.BatchNorm3d(c_out, eps=1e-3)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.features = nn.Sequential(*layers)
        self.logits = nn.Conv3d(8 * width, 2, (2, 4, 4))
        self.apply(initialise)

    def forward(self, video_bcthw: Tensor) -> Tensor:
        logits_bk: Tensor = self.logits(self.features(video_bcthw)).flatten(1)
        return logits_bk


def _narrowing(width: int) -> tuple[int, int, int, int]:
    """Channels of G's four hidden layers, 512 to 64 in the paper; D has them in reverse."""
    return 8 * width, 4 * width, 2 * width, width


def initialise(layer: nn.Module) -> None:
    """Section 2.4 and the code: convolutions N(0, 0.01), batch-norm weights N(1, 0.02), biases 0.

    Draws from torch's global generator; meant for `Module.apply`.
    """
    match layer:
        case nn.Conv3d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            nn.init.normal_(layer.weight, 0.0, 0.01)
        case nn.BatchNorm2d() | nn.BatchNorm3d():
            nn.init.normal_(layer.weight, 1.0, 0.02)
        case _:
            return
    assert layer.bias is not None, "every layer of VGAN has a bias"
    nn.init.zeros_(layer.bias)


class Vgan(Learner):
    """Trains D, then G against the updated D, on one batch of fakes (Section 2.4, Eq. 1).

    Pass the same noise tensor object to both phases of a step: the fakes and their graph are kept
    from the first for the second. A generator phase of other noise makes its own fakes.
    """

    phases = ("discriminator", "generator")

    def __init__(self, config: VganConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator = Discriminator(config.width)
        self.generator = Generator(config)
        self._kept: tuple[Tensor, dict[str, Tensor]] | None = None

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """z ~ N(0, I): (count, latent), float32 on the CPU."""
        return torch.randn(count, self.config.latent, generator=generator)

    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor, **_: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The phase's loss, a mean over the clips, and its metrics, detached scalars.

        discriminator: d_loss = CE(real) + CE(fake), summed (the authors' log prints half of it);
            d_real and d_fake, D's mean probability of "real" on real clips and on fakes.
        generator: g_loss, all that is minimised; mask_mean (two streams) in [0, 1], lambda times
            which g_loss contains.
        """
        match phase:
            case "discriminator":
                return self._discriminator_loss(video_bcthw, noise)
            case "generator":
                return self._generator_loss(noise)
        raise ValueError(f"phase={phase!r}: VGAN has the phases {', '.join(self.phases)}")

    def _discriminator_loss(
        self, video_bcthw: Tensor, z_bd: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        fakes = self.call("generator", z_bd)
        self._kept = (z_bd, fakes)
        # Two forwards, not one of both: batch-norm normalises reals and fakes apart, as the code.
        real_bk = self.call("discriminator", video_bcthw)
        fake_bk = self.call("discriminator", fakes["sample"].detach())
        loss = _cross_entropy(real_bk, REAL) + _cross_entropy(fake_bk, FAKE)
        return loss, {
            "d_loss": loss.detach(),
            "d_real": _probability_real(real_bk),
            "d_fake": _probability_real(fake_bk),
        }

    def _generator_loss(self, z_bd: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (kept_z, fakes), self._kept = self._kept or (None, {}), None
        if kept_z is not z_bd:
            fakes = self.call("generator", z_bd)
        # The bare module: D's parameters take no gradient here, so there is none to synchronise.
        with frozen(self.discriminator):
            loss = _cross_entropy(self.discriminator(fakes["sample"]), REAL)
        metrics: dict[str, Tensor] = {}
        if "mask" in fakes:
            mask_mean = fakes["mask"].mean(dtype=torch.float32)
            loss = loss + self.config.mask_lambda * mask_mean  # Section 2.2, the sparsity prior
            metrics["mask_mean"] = mask_mean.detach()
        return loss, {"g_loss": loss.detach(), **metrics}

    @torch.no_grad()
    def sample(self, noise: Tensor, video_bcthw: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        """Videos of (B, 3, 32, 64, 64) in [-1, 1] by name, made with running statistics.

        "sample", and with two streams "foreground", "mask" (2m - 1, grey) and "background" (still).
        """
        with evaluating(self.generator):
            parts: dict[str, Tensor] = self.generator(noise)
        if "mask" in parts:
            parts["mask"] = 2 * parts["mask"] - 1
        return {name: part.expand_as(parts["sample"]) for name, part in parts.items()}


def _cross_entropy(logits_bk: Tensor, label: int) -> Tensor:
    """Mean over b of -log softmax(logits)[label]."""
    return F.cross_entropy(logits_bk, logits_bk.new_full((len(logits_bk),), label).long())


def _probability_real(logits_bk: Tensor) -> Tensor:
    """D's mean probability of "real", a detached scalar."""
    return logits_bk.detach().float().softmax(1)[:, REAL].mean()
