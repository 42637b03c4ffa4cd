"""VideoVAE's attributes: which clips are labelled, and the classifier that tells the rest.

See `models.video_vae` for what is the paper's.

Legend: b clips, n pixels, c colours, t frames, h rows, w columns, a attributes, k their values,
d features, f features that may be dropped, x hidden units. -1 is an attribute that is unknown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.recurrent import Lstm
from models.video_vae_networks import Activation, Encoder, by_frame

_PRIME, _SPREAD = 2**31 - 1, 1_327_217_885  # the second is the golden ratio's part of the first


def shown(video_bcthw: Tensor, share: float) -> Tensor:
    """(B,) bool: which clips are labelled, by a hash of their 8-bit pixels; about `share` of all.

    Integers throughout, so that every device agrees.
    """
    level_bn = ((video_bcthw.float() + 1) * 127.5).round().long().flatten(1)
    place_n = torch.arange(1, level_bn.shape[1] + 1, device=level_bn.device)
    hash_b = (level_bn * place_n).sum(1) % _PRIME * _SPREAD % _PRIME
    return hash_b < int(share * _PRIME)


class Attribute(nn.Module):
    """phi_att of one attribute: features_btd (B, T, D) -> logits (B, T, values), at each frame of
    what was seen up to it."""

    def __init__(self, latent: int, hidden: int, values: int) -> None:
        super().__init__()
        self.into = nn.Linear(latent, hidden)
        self.lstm = Lstm(hidden, hidden)
        self.logits = nn.Linear(hidden, values)

    def forward(self, features_btd: Tensor) -> Tensor:
        state = self.lstm.start(features_btd)
        seen: list[Tensor] = []
        for input_bx in self.into(features_btd).relu().unbind(1):
            state = self.lstm(input_bx, state)
            seen.append(state[0])
        logits_btk: Tensor = self.logits(torch.stack(seen, 1))
        return logits_btk.float()


class Classifier(nn.Module):
    """(video_bcthw, dropout's weight_btf) -> logits (B, T, values) of every attribute (Eq. 3)."""

    def __init__(
        self, width: int, latent: int, hidden: int, values: tuple[int, ...], activation: Activation
    ) -> None:
        super().__init__()
        self.encoder = Encoder(width, latent, activation)
        self.attributes = nn.ModuleList(Attribute(latent, hidden, each) for each in values)

    def forward(self, video_bcthw: Tensor, weight_btf: Tensor | None = None) -> list[Tensor]:
        features_btd = by_frame(self.encoder, video_bcthw, weight_btf)
        return [attribute(features_btd) for attribute in self.attributes]


def cross_entropy(logits: list[Tensor], attributes_ba: Tensor) -> Tensor:
    """(B,) nats: the mean over frames, summed over the attributes that are known."""
    total_b = torch.zeros(len(attributes_ba), device=attributes_ba.device)
    for logits_btk, value_b in zip(logits, attributes_ba.unbind(1), strict=True):
        target_bt = value_b.clamp_min(0)[:, None].expand(logits_btk.shape[:2])
        each_bt = F.cross_entropy(logits_btk.mT, target_bt, reduction="none")
        total_b = total_b + each_bt.mean(1) * (value_b >= 0)
    return total_b


def likeliest(logits: list[Tensor]) -> Tensor:
    """(B, A) int64: of each attribute the likeliest value at the last frame."""
    return torch.stack([each_btk[:, -1].argmax(1) for each_btk in logits], 1)


def accuracies(inferred_ba: Tensor, attributes_ba: Tensor, shown_b: Tensor) -> dict[str, Tensor]:
    """The share that is right of what is known, in [0, 1], 0 where nothing is: shown_accuracy of
    the labelled clips, hidden_accuracy of the others."""
    found: dict[str, Tensor] = {}
    for name, group_b in (("shown_accuracy", shown_b), ("hidden_accuracy", ~shown_b)):
        counts_ba = group_b[:, None] & (attributes_ba >= 0)
        right = (counts_ba & (inferred_ba == attributes_ba)).sum()
        found[name] = right / counts_ba.sum().clamp_min(1)
    return found


def one_hot(attributes_bta: Tensor, values: tuple[int, ...]) -> Tensor:
    """(B, T, K) float32: the attributes one-hot, one after the other; K = 0 without attributes."""
    columns = [attributes_bta.new_zeros(*attributes_bta.shape[:2], 0).float()]
    for each_bt, count in zip(attributes_bta.unbind(2), values, strict=True):
        value_k = torch.arange(count, device=attributes_bta.device)
        columns.append((each_bt[..., None] == value_k).float())
    return torch.cat(columns, 2)
