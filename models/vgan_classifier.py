"""VGAN's representation put to use (Section 3.3): D's layers classify actions.

"We replace the last layer (which is a binary classifier) with a K-way softmax classifier. We also
add dropout to the penultimate layer." "code" is the authors' main_ucf.lua.

Legend: b clips, c channels, t frames, h rows, w columns, k classes.

The rows of Figure 4a that are trained here, by `mode`:
- finetune: D's layers from a trained VGAN, the new layer at random, all trained.
- random: the same network from random weights, D's own (Section 2.4). The code's line for it, a
  comment, would have used Torch's default scale.
- logreg: "a logistic regression on only the last layer", D's layers frozen. Their batch norm uses
  VGAN's running statistics; the code's line for it, a comment too, would have trained with a
  batch's.

The paper gives no more than that. From the code: dropout 0.5 of whole channels (in all modes), the
new layer at Torch's default scale, +-1/sqrt(inputs). Neither says how clips are averaged to videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bounds import require_least
from models.learner import Learner, evaluating
from models.vgan import VganConfig, initialise, video_features

_FEATURES = "discriminator.features."  # of a VGAN learner's weights


@dataclass(frozen=True, kw_only=True)
class VganClassifierConfig:
    """The classifier's shape and what of it is trained; the defaults are the paper's.

    classes: of the labelled dataset. width: of the VGAN it begins from.
    dropout: the chance that a channel of the last features is dropped.
    """

    frames: ClassVar[int] = VganConfig.frames
    size: ClassVar[int] = VganConfig.size

    mode: Literal["finetune", "random", "logreg"] = "finetune"
    classes: int = 101
    width: int = 64
    dropout: float = 0.5

    def __post_init__(self) -> None:
        require_least(self, {"classes": 2, "width": 1})
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}: must be in [0, 1)")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it classifies."""
        return (self.frames, self.size, self.size, 3)

    def build(self) -> VganClassifier:
        """The learner, freshly initialised from torch's default generator."""
        return VganClassifier(self)


class Classifier(nn.Module):
    """video_bcthw (B, 3, 32, 64, 64) -> logits_bk (B, K).

    weight_bc: what the channels of the last features are multiplied by; None for nothing.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.features = video_features(width).apply(initialise)
        self.logits = nn.Conv3d(8 * width, classes, (2, 4, 4))

    def forward(self, video_bcthw: Tensor, weight_bc: Tensor | None = None) -> Tensor:
        features_bcthw = self.features(video_bcthw)
        if weight_bc is not None:
            features_bcthw = features_bcthw * weight_bc[:, :, None, None, None]
        logits_bk: Tensor = self.logits(features_bcthw).flatten(1)
        return logits_bk


class VganClassifier(Learner):
    """Cross entropy of the clips' classes. With mode=logreg the last layer is the only phase."""

    kind = "classifier"
    conditions = ("label_b",)
    needs_clips = True

    def __init__(self, config: VganClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.classes = config.classes
        self.needs_weights = config.mode != "random"
        self.phases = ("classifier.logits",) if config.mode == "logreg" else ("classifier",)
        self.classifier = Classifier(config.width, config.classes)
        if config.mode == "logreg":
            self.classifier.features.requires_grad_(False)

    def train(self, mode: bool = True) -> VganClassifier:
        """As any module, but frozen features stay in evaluation mode."""
        super().train(mode)
        if self.config.mode == "logreg":
            self.classifier.features.eval()
        return self

    def adopt(self, weights: dict[str, Tensor]) -> None:
        """Takes D's layers of a VGAN. Raises ValueError where there are none, or do not fit."""
        if self.config.mode == "random":
            raise ValueError("model.mode=random begins with random weights: give no init_from")
        theirs = {
            name.removeprefix(_FEATURES): tensor
            for name, tensor in weights.items()
            if name.startswith(_FEATURES)
        }
        if not theirs:
            raise ValueError("it has no discriminator whose layers to take: name a run of a VGAN")
        width = len(theirs["0.weight"])
        if width != self.config.width:
            raise ValueError(
                f"its discriminator has width {width}, and model.width={self.config.width}: "
                f"set model.width={width}"
            )
        self.classifier.features.load_state_dict(theirs)

    @property
    def detectors(self) -> nn.Sequential:
        """D's layers."""
        return self.classifier.features

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Dropout's uniforms in [0, 1): (count, 8 width), one for every channel of a clip."""
        return torch.rand(count, 8 * self.config.width, generator=generator)

    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor, **conditions: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean cross entropy, as a metric: loss; and accuracy, the share of the batch that is
        right, in [0, 1], both with dropout. conditions: label_b, int64 (B,)."""
        assert phase in self.phases, f"phase={phase!r}: only {self.phases} are trained"
        label_b, drop = conditions["label_b"], self.config.dropout
        weight_bc = (noise >= drop) / (1 - drop)
        if self.config.mode == "logreg":
            with torch.no_grad():
                features_bcthw = self.classifier.features(video_bcthw)
            dropped_bcthw = features_bcthw * weight_bc[:, :, None, None, None]
            logits_bk = self.call(phase, dropped_bcthw).flatten(1)
        else:
            logits_bk = self.call(phase, video_bcthw, weight_bc)
        loss = F.cross_entropy(logits_bk, label_b)
        accuracy = (logits_bk.detach().argmax(1) == label_b).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    @torch.no_grad()
    def predict(self, video_bcthw: Tensor) -> Tensor:
        """(B, K) float32 probabilities of the classes, without dropout."""
        with evaluating(self.classifier):
            logits_bk: Tensor = self.classifier(video_bcthw)
        return logits_bk.float().softmax(1)

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,  # noqa: ARG002
        video_bcthw: Tensor | None = None,
        **_: Tensor,
    ) -> dict[str, Tensor]:
        """What the classifier looks at: (B, 3, 32, 64, 64) in [-1, 1] by name.

        "sample", the given clips, and "evidence" for the likeliest class against the mean of all:
        its logit is a sum over 2 x 4 x 4 places, shown as grey from -1 (against) over 0 (nothing)
        to 1 (for), the strongest place of a clip at full. Raises ValueError without clips.
        """
        if video_bcthw is None:
            raise ValueError("a classifier makes no videos: give clips, or ask it to predict")
        with evaluating(self.classifier):
            features_bcthw = self.classifier.features(video_bcthw)
            likeliest_b = self.classifier.logits(features_bcthw).flatten(1).argmax(1)
        filters_kcthw = self.classifier.logits.weight
        against_bcthw = filters_kcthw[likeliest_b] - filters_kcthw.mean(0)
        places_b1thw = (features_bcthw * against_bcthw).sum(1, keepdim=True)
        strongest_b = places_b1thw.flatten(1).abs().amax(1).clamp_min(1e-12)
        evidence_b1thw = F.interpolate(
            places_b1thw / strongest_b.view(-1, 1, 1, 1, 1), video_bcthw.shape[2:]
        )
        return {"sample": video_bcthw, "evidence": evidence_b1thw.expand_as(video_bcthw)}
