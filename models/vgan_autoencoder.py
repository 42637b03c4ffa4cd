"""VGAN's baseline (Section 3.2): an autoencoder of video, and a mixture of Gaussians of its codes.

"The encoder is similar to the discriminator network (except producing 100 dimensional code), while
the decoder follows the two-stream generator network." A novel video is the decoding of a draw from
"a Gaussian Mixture Model (GMM) with 256 components over the 100 dimensional hidden space".

Legend: b clips, d dimensions of the code, c colours, t frames, h rows, w columns, n codes.

Neither this model nor a loss for it is in the authors' code, and the paper prints no loss. We take:
- the mean over pixels of the squared error, without the mask's prior: it is a part of the
  generator's objective in Section 2.2, and at its 0.1 would weigh about as much as the error does;
- the paper's initialisation and optimiser (Section 2.4), and no activation on the code;
- full covariances, on the codes of 64 clips for each component, computed with running statistics
  after the last step.
The paper's networks together have 28.9 million weights, VGAN's 27.3: "a similar number".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adversarial import as_pictures
from models.bounds import require_least
from models.learner import Learner, evaluating
from models.mixture import Mixture
from models.vgan import Discriminator, Generator, VganConfig

CODES_A_COMPONENT = 64


@dataclass(frozen=True, kw_only=True)
class VganAutoencoderConfig:
    """The baseline's shape; the defaults are the paper's.

    width, latent: as VGAN's; latent is the code's dimensions.
    components: of the mixture; with few clips fewer are fitted, see `Mixture.fit`.
    """

    frames: ClassVar[int] = VganConfig.frames
    size: ClassVar[int] = VganConfig.size

    width: int = 64
    latent: int = 100
    components: int = 256

    def __post_init__(self) -> None:
        require_least(self, {"width": 1, "latent": 1, "components": 1})

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, 3)

    def build(self) -> VganAutoencoder:
        """The learner, freshly initialised from torch's default generator."""
        return VganAutoencoder(self)


class Autoencoder(nn.Module):
    """video_bcthw -> {"code": (B, latent), and its decoding, as the two-stream generator}."""

    def __init__(self, config: VganAutoencoderConfig) -> None:
        super().__init__()
        self.encoder = Discriminator(config.width, outputs=config.latent)
        self.decoder = Generator(VganConfig(width=config.width, latent=config.latent))

    def forward(self, video_bcthw: Tensor) -> dict[str, Tensor]:
        code_bd = self.encoder(video_bcthw)
        return {"code": code_bd, **self.decoder(code_bd)}


class VganAutoencoder(Learner):
    """Reconstructs clips; after the last step it is fitted to the codes of many.

    Before that, samples are decoded from the normal that follows the codes of the training steps.
    Real clips are only shown reconstructed: `sample` also works without.
    """

    kind = "autoencoder"
    phases = ("autoencoder",)
    needs_clips = True

    def __init__(self, config: VganAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.codes = CODES_A_COMPONENT * config.components
        self.autoencoder = Autoencoder(config)
        self.mixture = Mixture(config.components, config.latent)

    @property
    def detectors(self) -> nn.Sequential:
        """The encoder's, in front of the code."""
        return self.autoencoder.encoder.features

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 1 + latent), for the mixture; training uses none of it."""
        return self.mixture.noise(count, generator)

    def loss(
        self,
        phase: str,
        video_bcthw: Tensor,
        noise: Tensor,  # noqa: ARG002
        **_: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of the reconstructions, in [0, 4]; as a metric: loss."""
        assert phase in self.phases, f"phase={phase!r}: only {self.phases} are trained"
        parts = self.call("autoencoder", video_bcthw)
        self.mixture.follow(parts["code"].detach())
        loss = F.mse_loss(parts["sample"].float(), video_bcthw)
        return loss, {"loss": loss.detach()}

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        video_bcthw: Tensor | None = None,
        **_: Tensor,
    ) -> dict[str, Tensor]:
        """Videos of (B, 3, 32, 64, 64) in [-1, 1] by name, made with running statistics.

        "sample", a decoded draw of the mixture, with its "foreground", "mask" (2m - 1, grey) and
        "background"; with clips given also "real", those, and their "reconstruction".
        """
        with evaluating(self.autoencoder):
            parts = as_pictures(self.autoencoder.decoder(self.mixture.draw(noise)))
            if video_bcthw is not None:
                parts["real"] = video_bcthw
                parts["reconstruction"] = self.autoencoder(video_bcthw)["sample"]
        return parts

    def code(self, video_bcthw: Tensor) -> Tensor:
        """(B, latent) codes of clips."""
        code_bd: Tensor = self.autoencoder.encoder(video_bcthw)
        return code_bd

    def fit(self, code_nk: Tensor, seed: int) -> None:
        """Fits the mixture to the codes. Raises ValueError for fewer than 2."""
        self.mixture.fit(code_nk, seed)
