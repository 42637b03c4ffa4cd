"""MoCoGAN (Tulyakov, Liu, Yang, Kautz, CVPR 2018, arXiv 1707.04993), the comparator of VideoVAE.

A video is made frame by frame by one image generator, of a content code that stays and a motion
code that a recurrent network moves. One discriminator judges single frames, one whole clips.

Sources. The paper's abstract and introduction: content is kept fixed, motion is a path in the
latent space of images, and image and video discriminators judge. What is known of the authors'
training: a GRU makes 10 values of motion beside 50 of content, 16 frames, the cross entropy of one
logit summed over real and made clips, optionally a category as InfoGAN's, Adam of 2e-4 (0.5, 0.999)
with a weight decay of 1e-5. As the method is cited, without its text at hand: z_C ~ N(0, I) once a
video; R_M turns eps(t) ~ N(0, I), and the category, one-hot, into z_M(t); D_I is given S_1, one
frame of a clip, D_V S_T, T consecutive ones; the category is told from D_V's last features. The
authors' program is licensed to be read only, and was not read for this.

Decided here, as none of these says it:
- The layers are DCGAN's: four strided steps and one from a point, kernels of 4, batch norm on inner
  layers, ReLU in G and LeakyReLU(0.2) in D. D_V's convolutions do not stride or pad in time, and
  its kernel is cut to the frames that are left, so that clips may have fewer than 13.
- Discriminators say a map of logits, and the loss is the mean over it.
- h(0) of R_M is 0. All of a clip is S_T, as the reader has cut it; S_1 is drawn anew for real
  clips and made ones.
- G minimises -log D, not log(1 - D).
- The term of mutual information has weight `category_weight` in D_V's loss and in G's.
- D_I, then D_V, then G against both, all on the same made clips; G's loss is taken anew from the
  updated discriminators.

Legend: b clips, c colours, t frames, h rows, w columns, e motion noise, k categories, y content.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bounds import require_least
from models.learner import Learner, evaluating, frozen


@dataclass(frozen=True, kw_only=True)
class MocoganConfig:
    """MoCoGAN's shape; the defaults are the paper's.

    width: channels of G's last hidden and of both discriminators' first layer. content, motion:
    values of each code. categories: of motion, that it is to find by itself; 0 for none.
    category_weight: of the mutual information with them.
    """

    size: ClassVar[int] = 64

    frames: int = 16
    width: int = 64
    content: int = 50
    motion: int = 10
    categories: int = 0
    category_weight: float = 1.0

    def __post_init__(self) -> None:
        require_least(self, {"frames": 1, "width": 1, "content": 1, "motion": 1})
        if self.categories < 0 or self.categories == 1:
            raise ValueError(f"categories={self.categories!r}: must be 0, or 2 or more")
        if not 0 <= self.category_weight < math.inf:
            raise ValueError(f"category_weight={self.category_weight!r}: must be finite, 0 or more")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, 3)

    def build(self) -> Mocogan:
        """The learner, freshly initialised from torch's default generator."""
        return Mocogan(self)


class Generator(nn.Module):
    """R_M and G_I: (content_by, noise_bte, category_bk one-hot) -> video (B, 3, T, 64, 64) in
    [-1, 1], of as many frames as the noise has."""

    def __init__(self, config: MocoganConfig) -> None:
        super().__init__()
        self.path = nn.GRUCell(config.motion + config.categories, config.motion)
        wide = [8 * config.width, 4 * config.width, 2 * config.width, config.width]
        layers: list[nn.Module] = [nn.ConvTranspose2d(config.content + config.motion, wide[0], 4)]
        for c_in, c_out in pairwise(wide):
            layers += [nn.BatchNorm2d(c_in), nn.ReLU(inplace=True)]
            layers.append(nn.ConvTranspose2d(c_in, c_out, 4, 2, 1))
        layers += [nn.BatchNorm2d(config.width), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(config.width, 3, 4, 2, 1), nn.Tanh()]
        self.image = nn.Sequential(*layers)

    def motion(self, noise_bte: Tensor, category_bk: Tensor) -> Tensor:
        """z_M(1) to z_M(T): (B, T, motion)."""
        state_be = torch.zeros_like(noise_bte[:, 0])
        path: list[Tensor] = []
        for noise_be in noise_bte.unbind(1):
            state_be = self.path(torch.cat([noise_be, category_bk], 1), state_be)
            path.append(state_be)
        return torch.stack(path, 1)

    def forward(self, content_by: Tensor, noise_bte: Tensor, category_bk: Tensor) -> Tensor:
        B, T = noise_bte.shape[:2]
        content_bty = content_by[:, None].expand(-1, T, -1)
        code_btz = torch.cat([content_bty, self.motion(noise_bte, category_bk)], 2)
        frames_nchw: Tensor = self.image(code_btz.flatten(0, 1)[:, :, None, None])
        return frames_nchw.view(B, T, *frames_nchw.shape[1:]).transpose(1, 2)


class ImageDiscriminator(nn.Module):
    """D_I: frames_bchw -> logits (B, 1, 4, 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for c_in, c_out in ((width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out)]
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, 2, 1))

    def forward(self, frames_bchw: Tensor) -> Tensor:
        logits: Tensor = self.layers(frames_bchw)
        return logits


class VideoDiscriminator(nn.Module):
    """D_V and Q: video_bcthw -> logits (B, 1 + categories, T', 4, 4)."""

    def __init__(self, config: MocoganConfig) -> None:
        super().__init__()
        width, left = config.width, config.frames
        channels = [3, width, 2 * width, 4 * width, 1 + config.categories]
        layers: list[nn.Module] = []
        for place, (c_in, c_out) in enumerate(pairwise(channels)):
            deep = min(4, left)
            left -= deep - 1
            layers.append(nn.Conv3d(c_in, c_out, (deep, 4, 4), (1, 2, 2), (0, 1, 1)))
            if place in (1, 2):
                layers.append(nn.BatchNorm3d(c_out))
            if place < 3:
                layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, video_bcthw: Tensor) -> Tensor:
        logits: Tensor = self.layers(video_bcthw)
        return logits


class Draws(NamedTuple):
    """What a step's noise is for: codes; the categories one-hot (B, K), K = 0 without; and S_1's
    frames of real and made clips, int64 (B,)."""

    content_by: Tensor
    motion_bte: Tensor
    category_bk: Tensor
    real_b: Tensor
    made_b: Tensor


class Mocogan(Learner):
    """Three phases: D_I, D_V, and the generator against both.

    Pass the same noise tensor object to all phases of a step: the clips made for the first are kept
    for the others, with their graph. Another noise makes others.
    """

    phases = ("image_discriminator", "video_discriminator", "generator")

    def __init__(self, config: MocoganConfig) -> None:
        super().__init__()
        self.config = config
        self.image_discriminator = ImageDiscriminator(config.width)
        self.video_discriminator = VideoDiscriminator(config)
        self.generator = Generator(config)
        self._kept: tuple[Tensor, Tensor] | None = None

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3 + content + T x motion) of N(0, 1): category and frames of S_1, then codes."""
        c = self.config
        return torch.randn(count, 3 + c.content + c.frames * c.motion, generator=generator)

    def draws(self, noise: Tensor) -> Draws:
        """What noise of any number of frames is for."""
        c = self.config
        motion_bte = noise[:, 3 + c.content :].reshape(len(noise), -1, c.motion)
        uniform_b3 = torch.special.ndtr(noise[:, :3])
        frames = motion_bte.shape[1]
        real_b, made_b = ((uniform_b3[:, 1:] * frames).long().clamp_max(frames - 1)).unbind(1)
        place_b = (uniform_b3[:, 0] * c.categories).long().clamp_max(c.categories - 1)
        category_bk = place_b[:, None] == torch.arange(c.categories, device=noise.device)
        return Draws(noise[:, 3 : 3 + c.content], motion_bte, category_bk.float(), real_b, made_b)

    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor, **_: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The phase's loss, a mean over the clips, and its metrics, detached scalars.

        image_discriminator, video_discriminator: d_image_loss, d_video_loss, cross entropy of real
            clips plus that of made ones, in nats; of D_V also that of the category's, weighed.
        generator: g_loss, of both discriminators and the category's; and category_loss, the last
            before its weight, at most ln(categories) when nothing is told of them.
        """
        draws = self.draws(noise)
        if self._kept is None or self._kept[0] is not noise:
            made = self.call("generator", draws.content_by, draws.motion_bte, draws.category_bk)
            self._kept = (noise, made)
        made_bcthw = self._kept[1]
        match phase:
            case "image_discriminator":
                real = self.call(phase, _frame(video_bcthw, draws.real_b))
                fake = self.call(phase, _frame(made_bcthw.detach(), draws.made_b))
                loss = _against(real, 1.0) + _against(fake, 0.0)
                return loss, {"d_image_loss": loss.detach()}
            case "video_discriminator":
                real = self.call(phase, video_bcthw)
                fake = self.call(phase, made_bcthw.detach())
                loss = _against(real[:, :1], 1.0) + _against(fake[:, :1], 0.0)
                loss = loss + self._category(fake, draws)[0]
                return loss, {"d_video_loss": loss.detach()}
            case "generator":
                self._kept = None
                return self._generator_loss(made_bcthw, draws)
        raise ValueError(f"phase={phase!r}: MoCoGAN has the phases {', '.join(self.phases)}")

    def _generator_loss(self, made_bcthw: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        # The bare modules: their parameters take no gradient here, so there is none to synchronise.
        with frozen(self.image_discriminator), frozen(self.video_discriminator):
            frame = self.image_discriminator(_frame(made_bcthw, draws.made_b))
            video = self.video_discriminator(made_bcthw)
        category, metrics = self._category(video, draws)
        loss = _against(frame, 1.0) + _against(video[:, :1], 1.0) + category
        return loss, {"g_loss": loss.detach(), **metrics}

    def _category(self, logits: Tensor, draws: Draws) -> tuple[Tensor | float, dict[str, Tensor]]:
        """(-E log Q(category | clip), weighed; itself as a metric); 0 without categories."""
        if not self.config.categories:
            return 0.0, {}
        logits_bk = logits[:, 1:].float().flatten(2).mean(2)
        loss = F.cross_entropy(logits_bk, draws.category_bk.argmax(1))
        return self.config.category_weight * loss, {"category_loss": loss.detach()}

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        video_bcthw: Tensor | None = None,  # noqa: ARG002
        **_: Tensor,
    ) -> dict[str, Tensor]:
        """{"sample": (B, 3, T, 64, 64) in [-1, 1]}, of as many frames as noise is for, made with
        running statistics."""
        draws = self.draws(noise)
        with evaluating(self.generator):
            made = self.generator(draws.content_by, draws.motion_bte, draws.category_bk)
        return {"sample": made}


def _frame(video_bcthw: Tensor, place_b: Tensor) -> Tensor:
    """S_1: of each clip the frame at its place (B, C, H, W)."""
    return video_bcthw[torch.arange(len(video_bcthw), device=video_bcthw.device), :, place_b]


def _against(logits: Tensor, label: float) -> Tensor:
    """The mean over a map of logits of the cross entropy with one label, in nats."""
    return F.binary_cross_entropy_with_logits(
        logits.float(), torch.full_like(logits, label).float()
    )
