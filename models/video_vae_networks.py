"""The networks of VideoVAE, as printed in its Appendix A.4 and Eq. 4 to 8: see `models.video_vae`.

Legend: b clips, n frames of all clips, c colours, t frames, h rows, w columns, d latents, f
features before the dropout, x hidden units, k values of all attributes, p mean and log sigma.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from models.drawing import gaussian_kl
from models.recurrent import Lstm, State

Activation = Literal["relu", "none"]
_LAYERS = ((9, 1), (7, 3), (5, 1), (3, 3))  # kernel and stride of the encoder's convolutions
_SIDE = 4  # of what they make of 64 x 64, without padding: 64, 56, 17, 13, 4


def channels(width: int) -> tuple[int, int, int, int, int]:
    """Of the frame and after each convolution: 3, 10, 20, 40, 80 in the paper."""
    return 3, width, 2 * width, 4 * width, 8 * width


def dropped(width: int) -> int:
    """How many values of a frame the dropout may drop: 1280 in the paper."""
    return channels(width)[-1] * _SIDE**2


def phi(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """phi_tau: "two fully-connected layers with a central ReLU unit"."""
    layers = (nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    return nn.Sequential(*initialised(*layers))


def distribution(inputs: int, hidden: int, latent: int) -> nn.Sequential:
    """phi_tau whose output is psi, mean and log sigma: (N, 2 latent). Log sigma begins as 0."""
    layers = phi(inputs, hidden, 2 * latent)
    nn.init.zeros_(list(layers.parameters())[-2][latent:])
    return layers


def initialised(*layers: nn.Module) -> tuple[nn.Module, ...]:
    """The layers of a row, begun so that values keep their size from end to end (He et al. 2015):
    weights N(0, 1 / inputs), or N(0, 2 / inputs) behind a ReLU, biases 0."""
    behind = 1
    for layer in layers:
        match layer:
            case nn.ReLU():
                behind = 2
                continue
            case nn.ConvTranspose2d():
                inputs = layer.weight[:, 0].numel() / math.prod(layer.stride)
            case nn.Linear() | nn.Conv2d():
                inputs = layer.weight[0].numel()
            case _:
                raise AssertionError(f"no weights are known for {layer}")
        assert layer.bias is not None
        nn.init.normal_(layer.weight, 0.0, math.sqrt(behind / inputs))
        nn.init.zeros_(layer.bias)
        behind = 1
    return layers


class Encoder(nn.Module):
    """phi_enc: frames_nchw (N, 3, 64, 64) -> (N, latent).

    weight_nf: what the dropout multiplies the (N, 1280) values by; None for nothing.
    """

    def __init__(self, width: int, latent: int, activation: Activation) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for (c_in, c_out), (kernel, stride) in zip(pairwise(channels(width)), _LAYERS, strict=True):
            layers.append(nn.Conv2d(c_in, c_out, kernel, stride))
            if activation == "relu":
                layers.append(nn.ReLU())
        self.convolutions = nn.Sequential(*layers)
        self.features = phi(dropped(width), 2 * latent, latent)
        initialised(*self.convolutions, *self.features)

    def forward(self, frames_nchw: Tensor, weight_nf: Tensor | None = None) -> Tensor:
        flat_nf = self.convolutions(frames_nchw).flatten(1)
        if weight_nf is not None:
            flat_nf = flat_nf * weight_nf
        features_nd: Tensor = self.features(flat_nf)
        return features_nd


class Decoder(nn.Module):
    """phi_dec: z_nd (N, latent) -> frames_nchw (N, 3, 64, 64), the mean of Eq. 6, not bounded."""

    def __init__(self, width: int, latent: int, activation: Activation) -> None:
        super().__init__()
        self.features = phi(latent, 2 * latent, dropped(width))
        layers: list[nn.Module] = []
        for (c_in, c_out), (kernel, stride) in zip(
            pairwise(reversed(channels(width))), reversed(_LAYERS), strict=True
        ):
            if activation == "relu":
                layers.append(nn.ReLU())
            missing = 1 if stride == 3 else 0  # rows that the encoder's stride left over
            layers.append(nn.ConvTranspose2d(c_in, c_out, kernel, stride, output_padding=missing))
        self.convolutions = nn.Sequential(*layers)
        *_, last = initialised(*self.features, *self.convolutions)
        with torch.no_grad():
            next(last.parameters()).mul_(0.1)  # the first pictures are near grey

    def forward(self, z_nd: Tensor) -> Tensor:
        map_nchw = self.features(z_nd).view(len(z_nd), -1, _SIDE, _SIDE)
        frames_nchw: Tensor = self.convolutions(map_nchw)
        return frames_nchw


def by_frame(encoder: Encoder, video_bcthw: Tensor, weight_btf: Tensor | None = None) -> Tensor:
    """The encoder's features (B, T, D) of all frames at once."""
    frames_nchw = video_bcthw.transpose(1, 2).flatten(0, 1)
    weight_nf = None if weight_btf is None else weight_btf.flatten(0, 1)
    features_nd: Tensor = encoder(frames_nchw, weight_nf)
    return features_nd.view(len(video_bcthw), -1, features_nd.shape[1])


class Vae(nn.Module):
    """The VAE of every frame and the LSTM between them.

    forward(video_bcthw, start_bx, noise_btd, weight_btf, given_btk) gives {"video": the
    reconstruction (B, C, T, H, W), not bounded; "kl_b": nats, the sum over the frames}.

    start_bx: h(0). noise_btd: of N(0, 1), for z. given_btk: the attributes one-hot, one after the
    other; K = 0 without.
    """

    def __init__(
        self,
        *,
        width: int,
        latent: int,
        hidden: int,
        activation: Activation,
        given: int,
        conditional: bool,
        structured: bool,
        static: bool,
    ) -> None:
        super().__init__()
        pair = 2 * latent
        self.conditional, self.structured, self.static = conditional, structured, static
        self.latent = latent
        self.encoder = Encoder(width, latent, activation)
        self.decoder = Decoder(width, latent, activation)
        self.initial = distribution(latent, hidden, latent)  # psi_q
        if structured:
            self.combined = distribution(pair + given, hidden, latent)  # psi_a
            self.moving = phi(hidden, hidden, latent)
            self.dynamic = distribution(pair + latent, hidden, latent)  # psi_dy
        if not static:
            self.expecting = phi(hidden, hidden, latent)
            self.prior = distribution(latent + given, hidden, latent)  # psi_p
            self.lstm = Lstm(pair + (latent if conditional else 0), hidden)

    def forward(
        self,
        video_bcthw: Tensor,
        start_bx: Tensor,
        noise_btd: Tensor,
        weight_btf: Tensor,
        given_btk: Tensor,
    ) -> dict[str, Tensor]:
        first_btp = self._initial(video_bcthw, weight_btf)
        combined_btp = self._combined(first_btp, given_btk)
        state = _begin(start_bx)
        kl_b = noise_btd.new_zeros(len(noise_btd))
        drawn: list[Tensor] = []
        last = noise_btd.shape[1] - 1
        for t in range(last + 1):
            prior_bp = self._prior(state, given_btk[:, t])
            dynamic_bp = self._dynamic(combined_btp[:, t], state)
            kl_b = kl_b + gaussian_kl(*dynamic_bp.chunk(2, 1), *prior_bp.chunk(2, 1)).sum(1)
            drawn.append(_draw(dynamic_bp, noise_btd[:, t]))
            if t < last:
                state = self._next(first_btp[:, t], drawn[-1], state)
        frames_nchw = self.decoder(torch.stack(drawn, 1).flatten(0, 1)).float()
        video_btchw = frames_nchw.view(*noise_btd.shape[:2], *frames_nchw.shape[1:])
        return {"video": video_btchw.transpose(1, 2), "kl_b": kl_b}

    def generate(
        self,
        start_bx: Tensor,
        noise_btd: Tensor,
        given_btk: Tensor,
        begun_bcthw: Tensor | None = None,
    ) -> Tensor:
        """A video (B, C, T, H, W) in [-1, 1], as many frames as noise has (Section 4.2).

        begun_bcthw: its first frames, which are reconstructed; from the next one z comes from the
        prior, and what is decoded of it is fed back.
        """
        begun = 0 if begun_bcthw is None else begun_bcthw.shape[2]
        state = _begin(start_bx)
        frames: list[Tensor] = []
        for t, noise_bd in enumerate(noise_btd.unbind(1)):
            given_b1k = given_btk[:, t : t + 1]
            if begun_bcthw is not None and t < begun:
                first_b1p = self._initial(begun_bcthw[:, :, t : t + 1])
                combined_b1p = self._combined(first_b1p, given_b1k)
                z_bd = _draw(self._dynamic(combined_b1p[:, 0], state), noise_bd)
                frames.append(self.decoder(z_bd).float().clamp(-1, 1))
            else:
                z_bd = _draw(self._prior(state, given_b1k[:, 0]), noise_bd)
                frames.append(self.decoder(z_bd).float().clamp(-1, 1))
                first_b1p = self._initial(frames[-1][:, :, None])
            state = self._next(first_b1p[:, 0], z_bd, state)
        return torch.stack(frames, 2)

    def _initial(self, video_bcthw: Tensor, weight_btf: Tensor | None = None) -> Tensor:
        """psi_q of each frame (Eq. 4, first line)."""
        first_btp: Tensor = self.initial(by_frame(self.encoder, video_bcthw, weight_btf))
        return first_btp.float()

    def _combined(self, first_btp: Tensor, given_btk: Tensor) -> Tensor:
        """psi_a (Eq. 4, second line)."""
        if not self.structured:
            return first_btp
        combined_btp: Tensor = self.combined(torch.cat([first_btp, given_btk], 2))
        return combined_btp.float()

    def _dynamic(self, combined_bp: Tensor, state: State) -> Tensor:
        """psi_dy (Eq. 4, third line)."""
        if not self.structured:
            return combined_bp
        both = torch.cat([combined_bp, self.moving(state[0]).float()], 1)
        dynamic_bp: Tensor = self.dynamic(both)
        return dynamic_bp.float()

    def _prior(self, state: State, given_bk: Tensor) -> Tensor:
        """psi_p (Eq. 5); N(0, 1) of a static model."""
        if self.static:
            return given_bk.new_zeros(len(given_bk), 2 * self.latent)
        prior_bp: Tensor = self.prior(torch.cat([self.expecting(state[0]).float(), given_bk], 1))
        return prior_bp.float()

    def _next(self, first_bp: Tensor, z_bd: Tensor, state: State) -> State:
        """h(t) (Eq. 8); without conditional sampling of psi_q alone."""
        if self.static:
            return state
        new: State = self.lstm(
            torch.cat([first_bp, z_bd], 1) if self.conditional else first_bp, state
        )
        return new


def _begin(start_bx: Tensor) -> State:
    return start_bx, torch.zeros_like(start_bx)


def _draw(parameters_bp: Tensor, noise_bd: Tensor) -> Tensor:
    """z of N(mean, sigma^2), the parameters being mean and log sigma (Eq. 6 and 7)."""
    mean_bd, log_sigma_bd = parameters_bp.chunk(2, 1)
    return mean_bd + log_sigma_bd.exp() * noise_bd
