"""Reads a clip of bouncing digits: which digits it shows, and which way each moves.

It judges videos that were drawn from captions, as a person would; no paper describes it. A small
3-d convolutional network, trained on the data's own clips; say its own accuracy beside any figure
that it gives.

Legend: b clips, c channels, t frames, h rows, w columns, k things that may be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bounds import require_least
from models.clip_classifier import LEAST_FRAMES, LEAST_SIZE, Judge, clip_features
from models.learner import evaluating


@dataclass(frozen=True, kw_only=True)
class BouncingReaderConfig:
    """scenes: how many things may be seen: a digit and its motion, 2 digit + motion."""

    frames: int = 10
    size: int = 64
    channels: int = 1
    width: int = 16
    scenes: int = 20

    def __post_init__(self) -> None:
        least = {"frames": LEAST_FRAMES, "size": LEAST_SIZE, "channels": 1, "width": 1}
        require_least(self, least, what="")
        if self.scenes != 20:
            raise ValueError(f"scenes={self.scenes!r}: must be 20, ten digits' two motions")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it reads."""
        return (self.frames, self.size, self.size, self.channels)

    def build(self) -> BouncingReader:
        """The learner, freshly initialised from torch's default generator."""
        return BouncingReader(self)


class BouncingReader(Judge):
    """Binary cross entropy of all things that may be seen, summed over them."""

    kind = "reader"
    phases = ("network",)
    conditions = ("scene_bk",)

    def __init__(self, config: BouncingReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.classes = config.scenes
        self.network = nn.Sequential(
            *clip_features(config.channels, config.width),
            nn.AdaptiveMaxPool3d(1),
            nn.Flatten(),
            nn.Linear(8 * config.width, config.scenes),
        )

    def blank(self, count: int) -> dict[str, Tensor]:
        """Clips that show nothing."""
        return {"scene_bk": torch.zeros(count, self.classes)}

    def loss(
        self,
        phase: str,
        video_bcthw: Tensor,
        noise: Tensor,  # noqa: ARG002
        **conditions: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As metrics: loss; and accuracy, the share of the batch's clips of which just as many
        things as they show are the likeliest. conditions: scene_bk, float, 1 where it is seen."""
        scene_bk = conditions["scene_bk"]
        logits_bk = self.call(phase, video_bcthw).float()
        each_bk = F.binary_cross_entropy_with_logits(logits_bk, scene_bk, reduction="none")
        loss = each_bk.sum(1).mean()
        right_b = read_right(logits_bk.detach(), scene_bk)
        return loss, {"loss": loss.detach(), "accuracy": right_b.float().mean()}

    @torch.no_grad()
    def predict(self, video_bcthw: Tensor) -> Tensor:
        """(B, K) float32: the probability that each thing is seen."""
        with evaluating(self.network):
            logits_bk: Tensor = self.network(video_bcthw)
        return logits_bk.float().sigmoid()


def likeliest(score_bk: Tensor, count_b: Tensor) -> Tensor:
    """bool (B, K): the count_b[b] largest of each row."""
    rank_bk = score_bk.argsort(1, descending=True).argsort(1)
    return rank_bk < count_b[:, None]


def read_right(score_bk: Tensor, scene_bk: Tensor) -> Tensor:
    """bool (B,): whether the likeliest things are all those that are there."""
    there_bk = scene_bk > 0
    return (likeliest(score_bk, there_bk.sum(1)) == there_bk).all(1)
