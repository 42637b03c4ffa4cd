"""Probabilistic Video Generation using Holistic Attribute Control (He et al., ECCV 2018): VideoVAE.

A VAE encodes and decodes every frame, an LSTM carries what it finds from frame to frame, and
attributes of the whole clip (who, what action) enter posterior and prior. The networks are in
`models.video_vae_networks`. No official code is known.

The two stages of Section 4.1 are the two phases. In the first `classifier_steps` steps only
`classifier` is trained, on the clips that are labelled; from then on only `vae`, with the labels
where they are given, and what the classifier says where not, fixed. In each stage the other phase's
loss is a constant without a graph: its gradients are None and its optimiser leaves it as it is.

Which clips are labelled is a function of their pixels alone (`video_vae_attributes.shown`): the
same clip is or is not, in every epoch and on every worker, and about `labelled` of a dataset are. A
clip that a reader cuts anew each time is another clip. An attribute of -1 is always unknown.

What the paper leaves open, contradicts, or has otherwise:
- "The image encoder and attribute classifiers are learned independently": the classifiers have an
  encoder of their own, of the same shape. When they are trained there is no encoder of the VAE yet,
  and their labels could not stay fixed if it went on learning below them.
- Footnote 2, "two fully-connected layers with a central ReLU unit, connected in time by an LSTM":
  here full, ReLU, LSTM, full, one such row an attribute. Cross entropy at every frame, so that a
  first frame can be asked too; the label inferred for a clip is the likeliest at its last frame.
- Reconstruction is L1 (Section 4.1), not the Gaussian of Eq. 6: sigma_x is not made. L1 and KL are
  sums over pixels, latents and frames, means over clips. Their relative weight is not given:
  `kl_weight` is it, and 1 the bound of Eq. 9, less a constant, for a Laplace density of scale 1
  (of scale s: s).
- The decoder ends in a convolution without a bound, as printed; what is shown, and what is fed
  back, is cut to [-1, 1].
- Nothing is printed between convolutions; a ReLU stands there, `activation="none"` leaves it out.
  The decoder needs an output padding of 1 at stride 3 to mirror 64, 56, 17, 13, 4.
- phi_tau's hidden layer is as wide as the LSTM; phi_tau(h) has as many values as a mean. Eq. 4 and
  Eq. 5 have each their own phi_tau(h). Networks say log sigma.
- h(0) is "randomly initialized" when generating from attributes: N(0, 1), with a cell of 0. It is
  so in training and reconstruction too; else the first frame's prior would meet what it never saw.
- Without structure (-S), "a single approximate posterior" is psi_q, of the frame alone, and no
  attribute is known to posterior or prior. `static` has neither LSTM nor learned prior.
- "Partial control": an attribute that is not specified (-1) is drawn uniformly, once a clip; where
  a first frame is given, the classifier tells it from that frame.
- No weights are given to begin with. Ours keep the size of values from layer to layer, log sigma
  begins as 0 and pictures near grey: with torch's own the encoder is not heard at first, and far
  less is learned in the same steps.
- Adam (A.4), not SGD (Section 4.1).

Legend: b clips, c colours, t frames, h rows, w columns, a attributes, k their values, d latents,
f features that may be dropped, x hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from models import video_vae_attributes as labels
from models.bounds import require_least
from models.learner import Learner
from models.video_vae_networks import Activation, Vae, dropped


@dataclass(frozen=True, kw_only=True)
class VideoVaeConfig:
    """VideoVAE's shape and ablations; the defaults are the paper's, for Weizmann.

    frames: of the clips it learns from; no weight depends on it. width: channels of the first
    convolution; the last has 8 times as many. latent: of each distribution. hidden: of the LSTM.
    attributes: how many values each has, as 9 people and 10 actions. labelled: the share of clips
    whose attributes are shown to the classifier, in (0, 1]. classifier_steps: its stage's length.
    conditional: +C, z is given to the LSTM. structured: +S, three posteriors and attributes.
    static: every frame by itself; only without the other two.
    dropout: of phi_enc. kl_weight: of KL against L1.
    """

    size: ClassVar[int] = 64

    frames: int = 10
    width: int = 10
    latent: int = 512
    hidden: int = 512
    attributes: tuple[int, ...] = (9, 10)
    labelled: float = 0.2
    classifier_steps: int = 1000
    conditional: bool = True
    structured: bool = True
    static: bool = False
    activation: Activation = "relu"
    dropout: float = 0.5
    kl_weight: float = 1.0

    def __post_init__(self) -> None:
        frames = 1 if self.static else 2
        require_least(self, {"frames": frames, "width": 1, "latent": 1, "hidden": 1})
        if self.static and (self.conditional or self.structured):
            raise ValueError(
                "static=True: has no LSTM to be conditional and no attributes to be structured by; "
                "set conditional=False and structured=False"
            )
        if self.structured and not (self.attributes and min(self.attributes) >= 2):
            raise ValueError(f"attributes={self.attributes!r}: must be one or more, each of >= 2")
        if not 0 < self.labelled <= 1:
            raise ValueError(f"labelled={self.labelled!r}: must be in (0, 1]")
        require_least(self, {"classifier_steps": 1}, what="")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}: must be in [0, 1)")
        if not 0 < self.kl_weight < math.inf:
            raise ValueError(f"kl_weight={self.kl_weight!r}: must be finite and greater than 0")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, 3)

    def build(self) -> VideoVae:
        """The learner, freshly initialised from torch's default generator."""
        return VideoVae(self)


class Draws(NamedTuple):
    """Of a step's noise what is for attributes, in [0, 1], for h(0), for z, and for dropout: what
    values are multiplied by, 0 or 1 / (1 - p), or 1 in evaluation mode."""

    attribute_ba: Tensor
    start_bx: Tensor
    z_btd: Tensor
    weight_btf: Tensor


class VideoVae(Learner):
    """Minimises L1 + kl_weight x KL (Eq. 9), after its classifiers' cross entropy.

    steps: how many were trained; part of the learner's state, as a tensor on the CPU.
    """

    goes_on = True

    def __init__(self, config: VideoVaeConfig) -> None:
        super().__init__()
        c = self.config = config
        self.values = c.attributes if c.structured else ()
        self.values_a: Tensor
        values_a = torch.tensor(self.values, dtype=torch.int64)
        self.register_buffer("values_a", values_a, persistent=False)
        self._once, self._each = len(self.values) + c.hidden, c.latent + dropped(c.width)
        self.steps = 0
        self._partial = False
        self.vae = Vae(
            width=c.width,
            latent=c.latent,
            hidden=c.hidden,
            activation=c.activation,
            given=sum(self.values),
            conditional=c.conditional,
            structured=c.structured,
            static=c.static,
        )
        self.phases = ("vae",)
        if c.structured:
            self.conditions = ("attributes_ba",)
            self.phases = ("classifier", "vae")
            self.classifier = labels.Classifier(
                c.width, c.latent, c.hidden, c.attributes, c.activation
            )

    def settle(self) -> None:
        """Behind the classifiers' stage."""
        self.steps = max(self.steps, self.config.classifier_steps)

    def get_extra_state(self) -> Tensor:
        """The steps trained, int64."""
        return torch.tensor(self.steps, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Goes on from so many."""
        self.steps = int(state)

    @contextmanager
    def local_gradients(self) -> Iterator[None]:
        """As any learner's; a step is counted at its last part, which is taken outside."""
        self._partial = True
        try:
            with super().local_gradients():
                yield
        finally:
            self._partial = False

    def blank(self, count: int) -> dict[str, Tensor]:
        """The first value of every attribute."""
        none_ba = torch.zeros(count, len(self.values), dtype=torch.int64)
        return dict.fromkeys(self.conditions, none_ba)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, A + X + T (D + F)) of N(0, 1): attributes, h(0), then z and dropout by frame."""
        return torch.randn(count, self._once + self.config.frames * self._each, generator=generator)

    def draws(self, noise: Tensor) -> Draws:
        """What noise of any number of frames is for."""
        c, known = self.config, len(self.values)
        by_frame_bty = noise[:, self._once :].reshape(len(noise), -1, self._each)
        z_btd, drop_btf = by_frame_bty[..., : c.latent], by_frame_bty[..., c.latent :]
        drop = c.dropout if self.training else 0.0
        weight_btf = (torch.special.ndtr(drop_btf) >= drop) / (1 - drop)
        attribute_ba = torch.special.ndtr(noise[:, :known])
        return Draws(attribute_ba, noise[:, known : self._once], z_btd, weight_btf)

    def loss(
        self, phase: str, video_bcthw: Tensor, noise: Tensor, **conditions: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The phase's loss where this is its stage, else a constant without metrics.

        conditions: attributes_ba, int64 (B, A), -1 where unknown; of a structured model.
        classifier: classifier_loss, nats an attribute and labelled clip, summed over attributes;
            shown_accuracy and hidden_accuracy in [0, 1], with dropout, on the clips that are
            labelled and on the others, of attributes that are known.
        vae: objective = reconstruction + kl_weight x kl, a clip, and the accuracies, without
            dropout. Not named a loss: whoever watches losses for leaps would see the stages change.
        """
        assert phase in self.phases, f"phase={phase!r}: only {self.phases} are trained"
        classifying = "classifier" in self.phases and self.steps < self.config.classifier_steps
        if phase == "vae" and self.training and not self._partial:
            self.steps += 1
        if (phase == "classifier") != classifying:
            return torch.zeros((), device=video_bcthw.device, requires_grad=True), {}
        draws = self.draws(noise)
        if classifying:
            return self._classifier_loss(video_bcthw, draws, **conditions)
        return self._vae_loss(video_bcthw, draws, **conditions)

    def _classifier_loss(
        self, video_bcthw: Tensor, draws: Draws, attributes_ba: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the labelled clips, over `labelled` of all: so it is a mean over all clips too."""
        logits = self.call("classifier", video_bcthw, draws.weight_btf)
        shown_b = labels.shown(video_bcthw, self.config.labelled)
        each_b = labels.cross_entropy(logits, attributes_ba.where(shown_b[:, None], -1))
        loss = each_b.mean() / self.config.labelled
        right = labels.accuracies(labels.likeliest(logits), attributes_ba, shown_b)
        return loss, {"classifier_loss": loss.detach(), **right}

    def _vae_loss(
        self, video_bcthw: Tensor, draws: Draws, attributes_ba: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        right: dict[str, Tensor] = {}
        used_ba = None
        if attributes_ba is not None:
            shown_b = labels.shown(video_bcthw, self.config.labelled)
            inferred_ba = self.infer(video_bcthw)
            used_ba = attributes_ba.where(shown_b[:, None] & (attributes_ba >= 0), inferred_ba)
            right = labels.accuracies(inferred_ba, attributes_ba, shown_b)
        given_btk = self._given(used_ba, draws)
        made = self.call(
            "vae", video_bcthw, draws.start_bx, draws.z_btd, draws.weight_btf, given_btk
        )
        apart = (made["video"] - video_bcthw).abs().flatten(1).sum(1).mean()
        kl = made["kl_b"].mean()
        loss = apart + self.config.kl_weight * kl
        found = {"objective": loss, "reconstruction": apart, "kl": kl, **right}
        return loss, {name: value.detach() for name, value in found.items()}

    @torch.no_grad()
    def infer(self, video_bcthw: Tensor) -> Tensor:
        """(B, A) int64: the likeliest value of each attribute, of clips or of single frames."""
        return labels.likeliest(self.classifier(video_bcthw))

    def _given(self, attributes: Tensor | None, draws: Draws) -> Tensor:
        """Attributes (B, A) or (B, T, A) one-hot, (B, T, K); drawn where -1 or not given."""
        drawn_ba = (draws.attribute_ba * self.values_a).long().minimum(self.values_a - 1)
        given_bta = drawn_ba[:, None].expand(-1, draws.z_btd.shape[1], -1)
        if attributes is not None:
            by_frame = attributes if attributes.dim() == 3 else attributes[:, None]
            given_bta = torch.where(by_frame < 0, given_bta, by_frame)
        return labels.one_hot(given_bta, self.values)

    @torch.no_grad()
    def sample(
        self, noise: Tensor, video_bcthw: Tensor | None = None, **conditions: Tensor
    ) -> dict[str, Tensor]:
        """Videos (B, 3, T, 64, 64) in [-1, 1] by name, of as many frames as noise is for.

        "sample": from attributes alone, or going on from the first frame of the clips given; of
        whole clips also "real" and "reconstruction". attributes_ba: int64 (B, A), or (B, T, A) for
        attributes that change; -1, or no attributes, leaves them free.
        """
        draws, attributes = self.draws(noise), conditions.get("attributes_ba")

        def made(begun_bcthw: Tensor | None) -> Tensor:
            given_btk = self._given(self._told(attributes, begun_bcthw), draws)
            return self.vae.generate(draws.start_bx, draws.z_btd, given_btk, begun_bcthw)

        parts = {"sample": made(None if video_bcthw is None else video_bcthw[:, :, :1])}
        if video_bcthw is not None and video_bcthw.shape[2] > 1:
            parts |= {"real": video_bcthw, "reconstruction": made(video_bcthw)}
        return parts

    def _told(self, attributes: Tensor | None, seen_bcthw: Tensor | None) -> Tensor | None:
        """Attributes, those not specified inferred from what is seen."""
        if not self.values:
            return None
        if seen_bcthw is None:
            return attributes
        inferred_ba = self.infer(seen_bcthw)
        if attributes is None:
            return inferred_ba
        inferred = inferred_ba if attributes.dim() == 2 else inferred_ba[:, None]
        return torch.where(attributes < 0, inferred, attributes)
