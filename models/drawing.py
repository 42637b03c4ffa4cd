"""Sync-DRAW's network: the windows, and the recurrent VAE that draws through them.

Sources and deviations are in `models.sync_draw`, whose config says how large it all is.

Legend: b clips, n frames, c channels, h rows, w columns, d latents, x flat patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from models import attention
from models.captions import Alignment, Sentence
from models.recurrent import Lstm

if TYPE_CHECKING:
    from models.sync_draw import SyncDrawConfig


class Stroke(NamedTuple):
    """The video after a stroke. canvas_bnchw: logits. box_bn4: where the stroke was written: the
    window's outer points as top, left, bottom, right, in pixels, which may lie outside."""

    canvas_bnchw: Tensor
    box_bn4: Tensor


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

    def box(self, hidden_bh: Tensor) -> Tensor:
        """(B, N, 4); see `Stroke`. A filterbank's outer points are its outer rows' means."""
        at = self.at(hidden_bh)
        edges = []
        for rows in (at[-3], at[-2]):  # along rows, along columns
            pixels = torch.arange(rows.shape[-1], device=rows.device, dtype=rows.dtype)
            edges.append(rows[..., [0, -1], :] @ pixels)
        box = torch.stack(
            [edges[0][..., 0], edges[1][..., 0], edges[0][..., 1], edges[1][..., 1]], -1
        )
        return box if box.dim() == 3 else box[:, None].expand(-1, self._config.frames, -1)


class Drawing(nn.Module):
    """The recurrent VAE: encoder and decoder LSTM, windows, latent.

    forward(video_bnchw in [0, 1], noise_btd, caption_bl) gives {"canvas": logits (B, N, C, H, W) of
    the finished video; of all strokes, in nats, "kl_b", KL(q || prior), and "log_ratio_b", log q -
    log prior at the z that were drawn, whose mean kl_b is}.
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
        if captions == "skip_thoughts":
            given = config.language
        elif captions == "sentence":
            self.sentence = Sentence(config.vocabulary, config.language)
            given = config.language
        elif captions == "aligned":
            self.alignment = Alignment(config.vocabulary, config.language, hidden)
            given = 2 * config.language
            self.prior = nn.Linear(hidden, 2 * latent, bias=False)
        self.reading = Windows(config)
        self.writing = Windows(config)
        both = given if captions in ("sentence", "skip_thoughts") else 0
        self.encoder = Lstm(2 * seen + hidden + both, hidden)
        self.decoder = Lstm(latent + given, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent)
        self.patch = nn.Linear(hidden, seen)

    def forward(
        self, video_bnchw: Tensor, noise_btd: Tensor, caption_bl: Tensor | None = None
    ) -> dict[str, Tensor]:
        canvas = torch.zeros_like(video_bnchw)
        kl_b = log_ratio_b = video_bnchw.new_zeros(len(video_bnchw))
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
            log_ratio_b = log_ratio_b + _log_ratio(z_bd, noise_bd, log_sigma_bd, *prior).sum(1)
            decoded = self._decode(z_bd, decoded, caption)
            canvas = canvas + self.writing.write(decoded[0], self.patch(decoded[0]))
        return {"canvas": canvas, "kl_b": kl_b, "log_ratio_b": log_ratio_b}

    def draw(self, noise_btd: Tensor, caption_bl: Tensor | None = None) -> list[Stroke]:
        """All strokes of a new video, with z from the prior."""
        c = self.config
        canvas = noise_btd.new_zeros(len(noise_btd), c.frames, c.channels, c.size, c.size)
        decoded = self.decoder.start(noise_btd)
        caption = self._caption(caption_bl)
        strokes = []
        for noise_bd in noise_btd.unbind(1):
            mu_bd, log_sigma_bd = self._prior(decoded[0], noise_bd)
            decoded = self._decode(mu_bd + log_sigma_bd.exp() * noise_bd, decoded, caption)
            canvas = canvas + self.writing.write(decoded[0], self.patch(decoded[0]))
            strokes.append(Stroke(canvas, self.writing.box(decoded[0])))
        return strokes

    def _caption(self, caption_bl: Tensor | None) -> Tensor | None:
        """A sentence's vector (B, D), or the words' (B, L, D) for the alignment."""
        if self.config.captions == "none":
            return None
        assert caption_bl is not None, "a model with captions is given them"
        if self.config.captions == "skip_thoughts":
            return caption_bl  # the vectors themselves
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


@torch.no_grad()
def _log_ratio(
    z: Tensor, noise: Tensor, log_sigma: Tensor, prior_mu: Tensor, prior_log_sigma: Tensor
) -> Tensor:
    """log q(z) - log prior(z) of every dimension, z being q's mean + noise sigma."""
    from_prior = (z - prior_mu) / prior_log_sigma.exp()
    return 0.5 * (from_prior**2 - noise**2) + prior_log_sigma - log_sigma
