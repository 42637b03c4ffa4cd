"""Classifies clips of any size: the judge of VideoVAE's scores (He et al. 2018, Section 5.2).

"We pre-train individual classifiers on each dataset": the paper gives neither their architecture
nor their accuracy. This one is a small 3-d convolutional network, decided here. Its classes are the
dataset's labels, or, as the paper's bounds imply (ln 4 of chairs, ln 90 of Weizmann), every
combination of its attributes.

Legend: b clips, c channels, t frames, h rows, w columns, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bounds import require_least
from models.learner import Learner, evaluating

LEAST_FRAMES, LEAST_SIZE = 4, 16


@dataclass(frozen=True, kw_only=True)
class ClipClassifierConfig:
    """classes: of the labelled dataset. joint: every combination of the clips' attributes is one,
    but for the one named `without`, instead of their label. width: channels of the first layer; the
    last has 8 times as many."""

    frames: int = 10
    size: int = 64
    channels: int = 3
    width: int = 16
    classes: int = 90
    joint: bool = True
    without: str = ""

    def __post_init__(self) -> None:
        least = {"frames": LEAST_FRAMES, "size": LEAST_SIZE}
        require_least(self, least | {"channels": 1, "width": 1, "classes": 2}, what="")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it classifies."""
        return (self.frames, self.size, self.size, self.channels)

    def build(self) -> ClipClassifier:
        """The learner, freshly initialised from torch's default generator."""
        return ClipClassifier(self)


def clip_features(channels: int, width: int) -> nn.Sequential:
    """video_bcthw -> (B, 8 width, T / 4, H / 16, W / 16): four convolutions that look 3 frames and
    3 pixels wide, the last two half as often in time."""
    layers: list[nn.Module] = []
    for n, (c_in, c_out) in enumerate(pairwise((channels, width, 2 * width, 4 * width, 8 * width))):
        stride = (1 if n < 2 else 2, 2, 2)
        layers += [nn.Conv3d(c_in, c_out, 3, stride, 1, bias=False)]
        layers += [nn.BatchNorm3d(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class _Network(nn.Module):
    """video_bcthw -> logits_bk, from the mean of the features over time and place."""

    def __init__(self, config: ClipClassifierConfig) -> None:
        super().__init__()
        self.features = clip_features(config.channels, config.width)
        self.logits = nn.Linear(8 * config.width, config.classes)

    def forward(self, video_bcthw: Tensor) -> Tensor:
        logits_bk: Tensor = self.logits(self.features(video_bcthw).mean((2, 3, 4)))
        return logits_bk


class Judge(Learner):
    """Looks at clips and makes none."""

    needs_clips = True

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,  # noqa: ARG002
        video_bcthw: Tensor | None = None,
        **_: Tensor,
    ) -> dict[str, Tensor]:
        """The clips that it was given to judge. Raises ValueError without any."""
        if video_bcthw is None:
            raise ValueError("a judge makes no videos: give clips, or ask it to predict")
        return {"sample": video_bcthw}


class ClipClassifier(Judge):
    """Cross entropy of the clips' classes."""

    kind = "classifier"
    phases = ("classifier",)

    def __init__(self, config: ClipClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.classes, self.without = config.classes, config.without
        self.conditions = ("joint_b" if config.joint else "label_b",)
        self.classifier = _Network(config)

    @property
    def detectors(self) -> nn.Sequential:
        """Its convolutions."""
        return self.classifier.features

    def loss(
        self,
        phase: str,
        video_bcthw: Tensor,
        noise: Tensor,  # noqa: ARG002
        **conditions: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As metrics: loss; and accuracy, the share of the batch that is right, in [0, 1].

        conditions: label_b, or joint_b, int64 (B,)."""
        (label_b,) = conditions.values()
        logits_bk = self.call(phase, video_bcthw).float()
        loss = F.cross_entropy(logits_bk, label_b)
        accuracy = (logits_bk.detach().argmax(1) == label_b).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    @torch.no_grad()
    def predict(self, video_bcthw: Tensor) -> Tensor:
        """(B, K) float32 probabilities of the classes."""
        with evaluating(self.classifier):
            logits_bk: Tensor = self.classifier(video_bcthw)
        return logits_bk.float().softmax(1)
