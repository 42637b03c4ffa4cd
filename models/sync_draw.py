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
from torch import Tensor, nn

from models import attention
from models.captions import Alignment, Sentence
from models.learner import Learner, evaluating
from models.recurrent import Lstm


@dataclass(frozen=True, kw_only=True)
class SyncDrawConfig:
    """The shape of Sync-DRAW; the defaults are the code's.

    attention: "frame", a window a frame, Sync-DRAW; "global", one window for all; "cuboid", the
    paper's baseline. strokes: T. grid: K, the points of a window along an axis. hidden: of both
    LSTMs. captions: "none"; "sentence", 2017: one vector given to both LSTMs; "aligned", 2016:
    words weighted anew at every stroke, and a learned prior. words: of a caption at most.
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
    captions: Literal["none", "sentence", "aligned"] = "none"
    words: int = 16
    vocabulary: int = 32
    language: int = 128
    binary: bool = False

    def __post_init__(self) -> None:
        least = {"channels": 1, "grid": 2, "vocabulary": 2}
        names = ("frames", "size", "channels", "strokes", "grid", "hidden", "latent", "words")
        for name in (*names, "vocabulary", "language"):
            value, minimum = getattr(self, name), least.get(name, 1)
            if value < minimum:
                raise ValueError(f"{name}={value!r}: must be an integer of {minimum} or more")
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels!r}: must be 1 (grey) or 3")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, self.channels)

    def build(self) -> SyncDraw:
        """The learner, freshly initialised from torch's default generator."""
        return SyncDraw(self)


class Windows(nn.Module):
    """Where to look, from a hidden state, and looking there: one of the three attentions."""

    def __init__(self, config: SyncDrawConfig) -> None:
        super().__init__()
        self._config = config
        windows = {"frame": config.frames, "global": 1, "cuboid": 1}[config.attention]
        each = attention.CUBOID if config.attention == "cuboid" else attention.WINDOW
        # By parameter, then by frame, as the code splits it.
        self.parameters_of = nn.Linear(config.hidden, each * windows)

    @staticmethod
    def patches(config: SyncDrawConfig) -> int:
        """How many K x K patches one look gives: one a frame, or a cuboid's K."""
        return config.grid if config.attention == "cuboid" else config.frames

    def at(self, hidden_bh: Tensor) -> attention.Window | attention.Cuboid:
        """The filterbanks that the hidden state asks for."""
        c = self._config
        flat_bp = self.parameters_of(hidden_bh)
        if c.attention == "cuboid":
            return attention.cuboid(flat_bp, c.grid, c.frames, c.size, c.size)
        parameters_bn5 = flat_bp.view(len(flat_bp), attention.WINDOW, -1).mT
        return attention.window(parameters_bn5.expand(-1, c.frames, -1), c.grid, c.size, c.size)

    def read(self, hidden_bh: Tensor, video_bnchw: Tensor) -> Tensor:
        """What is seen, flat: (B, patches x C x K x K)."""
        at = self.at(hidden_bh)
        if isinstance(at, attention.Cuboid):
            return attention.read_cuboid(video_bnchw, at).flatten(1)
        return attention.read(video_bnchw, at).flatten(1)

    def write(self, hidden_bh: Tensor, patch_bx: Tensor) -> Tensor:
        """The flat patches laid out: (B, N, C, H, W)."""
        c = self._config
        patch = patch_bx.view(-1, self.patches(c), c.channels, c.grid, c.grid)
        at = self.at(hidden_bh)
        if isinstance(at, attention.Cuboid):
            return attention.write_cuboid(patch, at)
        return attention.write(patch, at)


class Drawing(nn.Module):
    """The recurrent VAE: encoder and decoder LSTM, windows, latent.

    forward(video_bnchw in [0, 1], noise_btd, caption_bl) gives {"canvas": logits (B, N, C, H, W) of
    the finished video, "kl_b": nats of all strokes}.
    """

    def __init__(self, config: SyncDrawConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent, captions = config.hidden, config.latent, config.captions
        seen = Windows.patches(config) * config.channels * config.grid**2
        given = 0
        self.sentence: Sentence | None = None
        self.alignment: Alignment | None = None
        self.prior: nn.Linear | None = None
        if captions == "sentence":
            self.sentence = Sentence(config.vocabulary, config.language)
            given = config.language
        elif captions == "aligned":
            self.alignment = Alignment(config.vocabulary, config.language, hidden)
            given = 2 * config.language
            self.prior = nn.Linear(hidden, 2 * latent, bias=False)
        self.reading = Windows(config)
        self.writing = Windows(config)
        self.encoder = Lstm(2 * seen + hidden + (given if self.sentence else 0), hidden)
        self.decoder = Lstm(latent + given, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent)
        self.patch = nn.Linear(hidden, seen)

    def forward(
        self, video_bnchw: Tensor, noise_btd: Tensor, caption_bl: Tensor | None = None
    ) -> dict[str, Tensor]:
        canvas = torch.zeros_like(video_bnchw)
        kl_b = video_bnchw.new_zeros(len(video_bnchw))
        encoded = self.encoder.start(video_bnchw)
        decoded = self.decoder.start(video_bnchw)
        caption = self._caption(caption_bl)
        for noise_bd in noise_btd.unbind(1):
            error = video_bnchw - canvas.sigmoid()
            both = torch.cat([video_bnchw, error], 2)
            seen_bx = self.reading.read(decoded[0], both)
            sentence = [] if caption is None or self.alignment else [caption]
            encoded = self.encoder(torch.cat([seen_bx, decoded[0], *sentence], 1), encoded)
            mu_bd, log_sigma_bd = self.posterior(encoded[0]).float().chunk(2, 1)
            prior = self._prior(decoded[0], mu_bd)
            kl_b = kl_b + gaussian_kl(mu_bd, log_sigma_bd, *prior).sum(1)
            z_bd = mu_bd + log_sigma_bd.exp() * noise_bd
            decoded = self._decode(z_bd, decoded, caption)
            canvas = canvas + self.writing.write(decoded[0], self.patch(decoded[0]))
        return {"canvas": canvas, "kl_b": kl_b}

    def draw(self, noise_btd: Tensor, caption_bl: Tensor | None = None) -> list[Tensor]:
        """The canvases (B, N, C, H, W) after each stroke, as logits, with z from the prior."""
        c = self.config
        canvas = noise_btd.new_zeros(len(noise_btd), c.frames, c.channels, c.size, c.size)
        decoded = self.decoder.start(noise_btd)
        caption = self._caption(caption_bl)
        canvases = []
        for noise_bd in noise_btd.unbind(1):
            mu_bd, log_sigma_bd = self._prior(decoded[0], noise_bd)
            decoded = self._decode(mu_bd + log_sigma_bd.exp() * noise_bd, decoded, caption)
            canvas = canvas + self.writing.write(decoded[0], self.patch(decoded[0]))
            canvases.append(canvas)
        return canvases

    def _caption(self, caption_bl: Tensor | None) -> Tensor | None:
        """A sentence's vector (B, D), or the words' (B, L, D) for the alignment."""
        if self.sentence is None and self.alignment is None:
            return None
        assert caption_bl is not None, "a model with captions is given them"
        if self.sentence is not None:
            sentence_bd: Tensor = self.sentence(caption_bl)
            return sentence_bd
        assert self.alignment is not None
        return self.alignment.words(caption_bl)

    def _decode(
        self, z_bd: Tensor, decoded: tuple[Tensor, Tensor], caption: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One step of the decoder (Eq. 8 and 13; v1, Eq. 14)."""
        given = [z_bd]
        if self.alignment is not None:
            assert caption is not None
            given.append(self.alignment(caption, decoded[0]))
        elif caption is not None:
            given.append(caption)
        out: tuple[Tensor, Tensor] = self.decoder(torch.cat(given, 1), decoded)
        return out

    def _prior(self, hidden_bh: Tensor, like_bd: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log sigma) of a stroke's prior: of v1 tanh(W h) each, else 0. At the first stroke
        h is 0, and so are both."""
        if self.prior is None:
            zero_bd = torch.zeros_like(like_bd)
            return zero_bd, zero_bd
        mu_bd, log_sigma_bd = self.prior(hidden_bh).float().tanh().chunk(2, 1)
        return mu_bd, log_sigma_bd


def gaussian_kl(mu: Tensor, log_sigma: Tensor, prior_mu: Tensor, prior_log_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(prior)) of every dimension, in nats."""
    ratio = (2 * (log_sigma - prior_log_sigma)).exp()
    apart = ((mu - prior_mu) / prior_log_sigma.exp()) ** 2
    return 0.5 * (ratio + apart - 1) + prior_log_sigma - log_sigma


class SyncDraw(Learner):
    """Minimises L_X + L_Z, nats a video (Section 3.1.5).

    L_X is the binary cross entropy of all pixels of the finished canvas, summed; of grey pixels it
    cannot fall below their entropy.
    """

    phases = ("drawing",)

    def __init__(self, config: SyncDrawConfig) -> None:
        super().__init__()
        self.config = config
        self.drawing = Drawing(config)
        if config.captions != "none":
            self.conditions = ("caption_bl",)
            self.vocabulary, self.words = config.vocabulary, config.words

    def blank(self, count: int) -> dict[str, Tensor]:
        """Captions of one word."""
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

        conditions: caption_bl, int64 (B, L), 0 beyond the last word, for a model with captions.
        """
        assert phase in self.phases, f"phase={phase!r}: only {self.phases} are trained"
        target_bnchw = self.target(video_bcthw)
        parts = self.call("drawing", target_bnchw, noise, *conditions.values())
        reconstruction = bits(parts["canvas"], target_bnchw).mean()
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
            canvas = self.drawing.draw(noise, *conditions.values())[-1]
            parts = {"sample": as_video(canvas)}
            if video_bcthw is not None:
                target_bnchw = self.target(video_bcthw)
                seen = self.drawing(target_bnchw, noise, *conditions.values())
                parts["real"] = target_bnchw.transpose(1, 2) * 2 - 1
                parts["reconstruction"] = as_video(seen["canvas"])
        return parts


def bits(canvas: Tensor, target: Tensor) -> Tensor:
    """(B,): the binary cross entropy of sigmoid(canvas), summed over a video, in nats."""
    each = F.binary_cross_entropy_with_logits(canvas.float(), target, reduction="none")
    return each.flatten(1).sum(1)


def as_video(canvas_bnchw: Tensor) -> Tensor:
    """Logits as a video (B, C, N, H, W) in [-1, 1]."""
    return canvas_bnchw.transpose(1, 2).float().sigmoid() * 2 - 1
