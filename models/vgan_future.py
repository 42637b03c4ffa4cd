"""VGAN's future generation (Section 3.4): a video that goes on from a still image.

"code" is the authors' main_conditional.lua. Eq. 3 is the objective: VGAN's, with fakes made from a
clip's first frame x0 instead of z, and a penalty on how far their own first frame is from x0.

Legend: b clips, c colours, t frames, h rows, w columns.

Paper and code are two models; `encoder` chooses, and width and mask_lambda go with it:
- encoder="code", width=128, mask_lambda=0: four convolutions to a map of 8 width x 4 x 4, without a
  bottleneck; both streams start from the map; every layer is twice as wide as VGAN's; the mask has
  no prior.
- encoder="paper", width=64, mask_lambda=0.1: "a five-layer convolutional network [at] the front of
  the generator which encodes the image into the latent space. The rest of the generator and
  discriminator networks remain the same." Its layers are not printed: we take the code's four, of
  half the width, and a fifth to the `latent` values that VGAN's generator starts from.

Where paper and code differ beside that, or this file differs from both:
- Distance: the paper's text and the code say L1, its Eq. 3 prints a squared L2 norm. Both are here,
  as means over pixels, as the code's; a printed norm is a sum, 12,288 times as much.
- Lambda: 10 in the code, not given in the paper.
- The encoder has plain ReLU and batch norm of eps 1e-3, except on its first layer, as the code; and
  no batch norm on the fifth layer of the paper's.
- D is not shown x0 beside the video, in paper and code alike. No noise: one image, one future.
- What `models.vgan` says of Eq. 1, batch norm, initial weights and the order of the updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adversarial import Adversarial, as_pictures, mask_mean
from models.bounds import require_least
from models.learner import evaluating
from models.vgan import (
    Discriminator,
    StaticStream,
    VganConfig,
    VideoStream,
    composed,
    initialise,
    narrowing,
)


@dataclass(frozen=True, kw_only=True)
class VganFutureConfig:
    """The networks' shape and the penalties' weights; the defaults are the code's.

    encoder: see the module. width: channels of G's last hidden and of both encoders' first layer.
    latent: dimensions between the paper's encoder and its generator; without effect on the code's.
    first_frame: the distance of the fakes' first frame from x0, a mean over pixels.
    """

    frames: ClassVar[int] = VganConfig.frames
    size: ClassVar[int] = VganConfig.size

    encoder: Literal["code", "paper"] = "code"
    width: int = 128
    latent: int = 100
    first_frame: Literal["l1", "squared"] = "l1"
    first_frame_lambda: float = 10.0
    mask_lambda: float = 0.0

    def __post_init__(self) -> None:
        require_least(self, {"width": 1, "latent": 1})
        for name in ("first_frame_lambda", "mask_lambda"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)!r}: must be finite, 0 or more")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, 3)

    def build(self) -> VganFuture:
        """The learner, freshly initialised from torch's default generator."""
        return VganFuture(self)


class FutureGenerator(nn.Module):
    """still_bchw (B, 3, 64, 64) in [-1, 1] -> the four parts of Eq. 2, as VGAN's generator."""

    def __init__(self, config: VganFutureConfig) -> None:
        super().__init__()
        width, latent = config.width, config.latent
        widest, *_ = narrowing(width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.ReLU(inplace=True)]
        for c_in, c_out in pairwise(reversed(narrowing(width))):
            layers += [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out, eps=1e-3)]
            layers += [nn.ReLU(inplace=True)]
        if config.encoder == "code":
            moving = nn.ConvTranspose3d(widest, widest, (2, 1, 1))
            still = None
        else:
            layers.append(nn.Conv2d(widest, latent, 4))
            moving = nn.ConvTranspose3d(latent, widest, (2, 4, 4))
            still = nn.ConvTranspose2d(latent, widest, 4)
        self.encoder = nn.Sequential(*layers)
        self.video = VideoStream(moving, width, masked=True)
        self.static = StaticStream(still, width)
        self.apply(initialise)

    def forward(self, still_bchw: Tensor) -> dict[str, Tensor]:
        code_bchw = self.encoder(still_bchw)
        f_bcthw, m_b1thw = self.video(code_bchw[:, :, None])
        return composed(f_bcthw, m_b1thw, self.static(code_bchw))


class VganFuture(Adversarial):
    """Fakes go on from a clip's first frame.

    Metrics beside the shared ones: first_frame, the distance, and mask_mean in [0, 1]; g_loss
    contains each times its lambda.
    """

    kind = "future"
    goes_on = True
    needs_clips = True
    generator: FutureGenerator

    def __init__(self, config: VganFutureConfig) -> None:
        super().__init__(Discriminator(config.width), FutureGenerator(config))
        self.config = config

    @property
    def detectors(self) -> nn.Sequential:
        """The encoder, as in Figure 6."""
        return self.generator.encoder

    def source(self, video_bcthw: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        """x0, the first frames (B, 3, 64, 64)."""
        return video_bcthw[:, :, 0]

    def penalties(
        self, fakes: dict[str, Tensor], video_bcthw: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """The last term of Eq. 3, and the mask's prior."""
        distance = F.l1_loss if self.config.first_frame == "l1" else F.mse_loss
        apart = distance(fakes["sample"][:, :, 0].float(), video_bcthw[:, :, 0])
        return {
            "first_frame": (self.config.first_frame_lambda, apart),
            "mask_mean": (self.config.mask_lambda, mask_mean(fakes)),
        }

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,  # noqa: ARG002
        video_bcthw: Tensor | None = None,
        **_: Tensor,
    ) -> dict[str, Tensor]:
        """Videos of (B, 3, 32, 64, 64) in [-1, 1] by name, made with running statistics.

        "sample", the future of the clips' first frames, "real", the clips, and the sample's
        "foreground", "mask" (2m - 1, grey) and "background" (still). Of clips of a single frame
        (B, 3, 1, 64, 64) there is no "real". Raises ValueError without clips.
        """
        if video_bcthw is None:
            raise ValueError("a future goes on from an image: give clips, or single frames")
        with evaluating(self.generator):
            made = as_pictures(self.generator(video_bcthw[:, :, 0]))
        sample = {"sample": made.pop("sample")}
        if video_bcthw.shape[2] > 1:
            sample["real"] = video_bcthw
        return sample | made
