"""Sync-DRAW (Mittal, Marwah, Balasubramanian 2017, arXiv 1611.10314v4; and v1, 2016).

A recurrent VAE draws a whole video in T strokes. At each, every frame is read through a window of
its own, one latent for the video is drawn, and every frame is written to through another window.
"code" is the authors' sync-draw.py.

Deviations from the printed text, which is inconsistent in places:
- The paper's N in the stride and in the grid's centres is K (see `models.attention`).
- The KL of a stroke is 1/2 sum(mu^2 + sigma^2 - log sigma^2 - 1) over the latent: Eq. 14 subtracts
  T/2 in all, the code T/2 a stroke. Both only shift what is reported, by 495 and 450 nats.
- Eq. 16 of v1, the KL to a learned prior, lacks the factor 1/2 and the -1 of each dimension.
- Noise is drawn anew for every stroke, as in the newer code. At test z comes from the prior; the
  "learned mu and sigma" of Section 3.1.6 belong to an encoder that is not there then.
- A sentence is of the words given: "Global" and "Baseline" are described in a sentence each.
  Global (4.6.1) here has one window for all frames; Baseline (4.1) reads and writes a cuboid of
  K x K x K through three filterbanks, with a stride and a variance of its own in time.

Legend: b clips, n frames, c channels, h rows, w columns, d latents, l words, t strokes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.bounds import require_least
from models.drawing import Drawing, Stroke
from models.learner import Learner, evaluating


@dataclass(frozen=True, kw_only=True)
class SyncDrawConfig:
    """The shape of Sync-DRAW; the defaults are the code's.

    attention: "frame", a window a frame, Sync-DRAW; "global", one window for all; "cuboid", the
    paper's baseline. strokes: T. grid: K, the points of a window along an axis. hidden: of both
    LSTMs. captions: "none"; 2017, one vector given to both LSTMs: "sentence" of an encoder
    that is trained along, "skip_thoughts" of the published one, of `language` numbers; "aligned",
    2016: words weighted anew at every stroke, and a learned prior. words: of a caption at most.
    vocabulary: words known, padding included. binary: pixels above one half are 1, all others 0;
    else they are grey, and the loss has a floor, their entropy.
    """

    attention: Literal["frame", "global", "cuboid"] = "frame"
    frames: int = 10
    size: int = 64
    channels: int = 1
    strokes: int = 10
    grid: int = 10
    hidden: int = 256
    latent: int = 100
    captions: Literal["none", "sentence", "skip_thoughts", "aligned"] = "none"
    words: int = 16
    vocabulary: int = 32
    language: int = 128
    binary: bool = False

    def __post_init__(self) -> None:
        names = ("frames", "size", "channels", "strokes", "hidden", "latent", "words", "language")
        require_least(self, dict.fromkeys(names, 1) | {"grid": 2, "vocabulary": 2})
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels!r}: must be 1 (grey) or 3")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, self.channels)

    def build(self) -> SyncDraw:
        """The learner, freshly initialised from torch's default generator."""
        return SyncDraw(self)


class SyncDraw(Learner):
    """Minimises L_X + L_Z, nats a video (Section 3.1.5).

    L_X is the binary cross entropy of all pixels of the finished canvas, summed; of grey pixels it
    cannot fall below their entropy.
    """

    kind = "drawing"
    phases = ("drawing",)

    def __init__(self, config: SyncDrawConfig) -> None:
        super().__init__()
        self.config = config
        self.drawing = Drawing(config)
        if config.captions == "skip_thoughts":
            self.conditions = ("sentence_bd",)
            self.language = config.language
        elif config.captions != "none":
            self.conditions = ("caption_bl",)
            self.vocabulary, self.words = config.vocabulary, config.words

    def blank(self, count: int) -> dict[str, Tensor]:
        """Captions of one word."""
        if "sentence_bd" in self.conditions:
            return {"sentence_bd": torch.zeros(count, self.language)}
        caption_bl = torch.zeros(count, self.words, dtype=torch.int64)
        caption_bl[:, :1] = 1
        return dict.fromkeys(self.conditions, caption_bl)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, T, latent) of N(0, 1), for the posterior's or the prior's draws."""
        return torch.randn(count, self.config.strokes, self.config.latent, generator=generator)

    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor, **conditions: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """loss = reconstruction + kl, nats a video, means over the clips; all three are metrics.

        conditions: caption_bl, int64 (B, L), 0 beyond the last word, or sentence_bd, float32, for a
            model with captions.
        """
        assert phase in self.phases, f"phase={phase!r}: only {self.phases} are trained"
        target_bnchw = self.target(video_bcthw)
        parts = self.call("drawing", target_bnchw, noise, *conditions.values())
        reconstruction = cross_entropy(parts["canvas"], target_bnchw).mean()
        kl = parts["kl_b"].mean()
        loss = reconstruction + kl
        found = {"loss": loss, "reconstruction": reconstruction, "kl": kl}
        return loss, {name: value.detach() for name, value in found.items()}

    def target(self, video_bcthw: Tensor) -> Tensor:
        """Clips in [-1, 1] as what is learned: (B, N, C, H, W) in [0, 1]."""
        grey_bnchw = (video_bcthw.float().transpose(1, 2) + 1) / 2
        return (grey_bnchw > 0.5).float() if self.config.binary else grey_bnchw

    @torch.no_grad()
    def sample(
        self, noise: Tensor, video_bcthw: Tensor | None = None, **conditions: Tensor
    ) -> dict[str, Tensor]:
        """Videos (B, C, N, H, W) in [-1, 1] by name: "sample", and of clips that are given, of a
        model without captions, also "real" and "reconstruction"."""
        with evaluating(self.drawing):
            strokes = self.drawing.draw(noise, *conditions.values())
            parts = {"sample": as_video(strokes[-1].canvas_bnchw)}
            if video_bcthw is not None:
                target_bnchw = self.target(video_bcthw)
                seen = self.drawing(target_bnchw, noise, *conditions.values())
                parts["real"] = target_bnchw.transpose(1, 2) * 2 - 1
                parts["reconstruction"] = as_video(seen["canvas"])
        return parts

    @torch.no_grad()
    def draw(self, noise: Tensor, **conditions: Tensor) -> list[Stroke]:
        """A new video stroke by stroke: how the canvas fills (2017, Figure 2c)."""
        with evaluating(self.drawing):
            return self.drawing.draw(noise, *conditions.values())

    @torch.no_grad()
    def bound(self, video_bcthw: Tensor, noise: Tensor, **conditions: Tensor) -> dict[str, Tensor]:
        """Of every clip (B,), in nats: "reconstruction", "kl", whose sum bounds -log p(x) from
        above; "log_weight", log p(x, z) / q(z | x) at the z drawn, for the importance-weighted
        bound; and "floor", the pixels' own entropy, below which no reconstruction can be."""
        target_bnchw = self.target(video_bcthw)
        with evaluating(self.drawing):
            parts = self.drawing(target_bnchw, noise, *conditions.values())
        reconstruction_b = cross_entropy(parts["canvas"], target_bnchw)
        sure = target_bnchw.clamp(1e-7, 1 - 1e-7)
        return {
            "reconstruction": reconstruction_b,
            "kl": parts["kl_b"],
            "log_weight": -reconstruction_b - parts["log_ratio_b"],
            "floor": cross_entropy(torch.logit(sure), target_bnchw),
        }


def cross_entropy(canvas: Tensor, target: Tensor) -> Tensor:
    """(B,): the binary cross entropy of sigmoid(canvas), summed over a video, in nats."""
    each = F.binary_cross_entropy_with_logits(canvas.float(), target, reduction="none")
    return each.flatten(1).sum(1)


def as_video(canvas_bnchw: Tensor) -> Tensor:
    """Logits as a video (B, C, N, H, W) in [-1, 1]."""
    return canvas_bnchw.transpose(1, 2).float().sigmoid() * 2 - 1
