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
from torch import Tensor, nn

from models.adversarial import Adversarial, as_pictures, mask_mean
from models.bounds import require_least
from models.learner import evaluating


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
        require_least(self, {"width": 1, "latent": 1})
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
    """b(z) of Eq. 2: a code of (B, C, H', W') -> a still of (B, 3, 1, 64, 64) in [-1, 1].

    opening: the convolution that makes (B, 8 width, 4, 4) of the code; None where the code is that.
    """

    def __init__(self, opening: nn.ConvTranspose2d | None, width: int) -> None:
        super().__init__()
        widest, *_ = narrowing(width)
        layers: list[nn.Module] = []
        if opening is not None:
            layers += [opening, nn.BatchNorm2d(widest), nn.ReLU(inplace=True)]
        for c_in, c_out in pairwise(narrowing(width)):
            layers += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())

    def forward(self, code_bchw: Tensor) -> Tensor:
        image_bchw: Tensor = self.layers(code_bchw)
        return image_bchw[:, :, None]


class VideoStream(nn.Module):
    """f(z) and m(z) of Eq. 2, which share all layers but the last.

    A code of (B, C, 1, H', W') -> foreground (B, 3, 32, 64, 64) in [-1, 1], and with `masked` the
    mask (B, 1, 32, 64, 64) in [0, 1], else None. Alone it is the paper's one-stream generator.
    opening: the convolution that makes (B, 8 width, 2, 4, 4) of the code.
    """

    def __init__(self, opening: nn.ConvTranspose3d, width: int, *, masked: bool) -> None:
        super().__init__()
        widest, *_ = narrowing(width)
        layers: list[nn.Module] = [opening, nn.BatchNorm3d(widest), nn.ReLU(inplace=True)]
        for c_in, c_out in pairwise(narrowing(width)):
            layers += [nn.ConvTranspose3d(c_in, c_out, 4, 2, 1), nn.BatchNorm3d(c_out)]
            layers += [nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers)
        self.foreground = nn.Sequential(nn.ConvTranspose3d(width, 3, 4, 2, 1), nn.Tanh())
        self.mask = (
            nn.Sequential(nn.ConvTranspose3d(width, 1, 4, 2, 1), nn.Sigmoid()) if masked else None
        )

    def forward(self, code_bcthw: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden_bcthw = self.trunk(code_bcthw)
        mask_b1thw = None if self.mask is None else self.mask(hidden_bcthw)
        return self.foreground(hidden_bcthw), mask_b1thw


class Generator(nn.Module):
    """z_bd (B, latent) -> {"sample": (B, 3, 32, 64, 64) in [-1, 1]}.

    With two streams also what Eq. 2 composes: "foreground", "mask" (one channel in [0, 1]) and
    "background" (one frame).
    """

    def __init__(self, config: VganConfig) -> None:
        super().__init__()
        latent, width = config.latent, config.width
        widest, *_ = narrowing(width)
        moving = nn.ConvTranspose3d(latent, widest, (2, 4, 4))
        self.video = VideoStream(moving, width, masked=config.two_stream)
        self.static = None
        if config.two_stream:
            self.static = StaticStream(nn.ConvTranspose2d(latent, widest, 4), width)
        self.apply(initialise)

    def forward(self, z_bd: Tensor) -> dict[str, Tensor]:
        f_bcthw, m_b1thw = self.video(z_bd[:, :, None, None, None])
        if self.static is None:
            return {"sample": f_bcthw}
        return composed(f_bcthw, m_b1thw, self.static(z_bd[:, :, None, None]))


def composed(f_bcthw: Tensor, m_b1thw: Tensor, b_bc1hw: Tensor) -> dict[str, Tensor]:
    """Eq. 2 and what it is made of: "sample", "foreground", "mask" and "background"."""
    video_bcthw = m_b1thw * f_bcthw + (1 - m_b1thw) * b_bc1hw
    return {"sample": video_bcthw, "foreground": f_bcthw, "mask": m_b1thw, "background": b_bc1hw}


class Discriminator(nn.Module):
    """Section 2.3: video_bcthw (B, 3, 32, 64, 64) -> logits_bk (B, 2), classes REAL and FAKE.

    outputs: another number of them, for an encoder with D's layers.
    """

    def __init__(self, width: int, outputs: int = 2) -> None:
        super().__init__()
        self.features = video_features(width)
        self.logits = nn.Conv3d(8 * width, outputs, (2, 4, 4))
        self.apply(initialise)

    def forward(self, video_bcthw: Tensor) -> Tensor:
        logits_bk: Tensor = self.logits(self.features(video_bcthw)).flatten(1)
        return logits_bk


def video_features(width: int) -> nn.Sequential:
    """D's four hidden layers: (B, 3, 32, 64, 64) -> (B, 8 width, 2, 4, 4)."""
    layers: list[nn.Module] = [nn.Conv3d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    for c_in, c_out in pairwise(reversed(narrowing(width))):
        layers += [nn.Conv3d(c_in, c_out, 4, 2, 1), nn.BatchNorm3d(c_out, eps=1e-3)]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers)


def narrowing(width: int) -> tuple[int, int, int, int]:
    """Channels of G's four hidden layers, 512 to 64 in the paper; D has them in reverse."""
    return 8 * width, 4 * width, 2 * width, width


def initialise(layer: nn.Module) -> None:
    """Section 2.4 and the code: convolutions N(0, 0.01), batch-norm weights N(1, 0.02), biases 0.

    Draws from torch's global generator; meant for `Module.apply`.
    """
    match layer:
        case nn.Conv2d() | nn.Conv3d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            nn.init.normal_(layer.weight, 0.0, 0.01)
        case nn.BatchNorm2d() | nn.BatchNorm3d():
            nn.init.normal_(layer.weight, 1.0, 0.02)
        case _:
            return
    assert layer.bias is not None, "every layer of VGAN has a bias"
    nn.init.zeros_(layer.bias)


class Vgan(Adversarial):
    """The paper's model: fakes are made from z, and the mask is to be sparse (Section 2.2).

    Metrics beside the shared ones: mask_mean (two streams), lambda times which g_loss contains.
    """

    discriminator: Discriminator

    def __init__(self, config: VganConfig) -> None:
        super().__init__(Discriminator(config.width), Generator(config))
        self.config = config

    @property
    def detectors(self) -> nn.Sequential:
        """D's layers."""
        return self.discriminator.features

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """z ~ N(0, I): (count, latent), float32 on the CPU."""
        return torch.randn(count, self.config.latent, generator=generator)

    def penalties(
        self,
        fakes: dict[str, Tensor],
        video_bcthw: Tensor,  # noqa: ARG002
    ) -> dict[str, tuple[float, Tensor]]:
        """The mask's prior, where there is a mask."""
        if not self.config.two_stream:
            return {}
        return {"mask_mean": (self.config.mask_lambda, mask_mean(fakes))}

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        video_bcthw: Tensor | None = None,  # noqa: ARG002
        **_: Tensor,
    ) -> dict[str, Tensor]:
        """Videos of (B, 3, 32, 64, 64) in [-1, 1] by name, made with running statistics.

        "sample", and with two streams "foreground", "mask" (2m - 1, grey) and "background" (still).
        """
        with evaluating(self.generator):
            return as_pictures(self.generator(noise))
