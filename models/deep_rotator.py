"""Deep Rotator (Yang, Reed, Yang, Lee, NIPS 2015, arXiv 1601.00706), VideoVAE's comparator on
chairs: from one image an encoder tells identity and pose, an action turns the pose, a decoder draws
what is seen then; again and again, for a whole turn.

"code" is the authors' release, jimeiyang/deepRotator (chair/base.prototxt, its RNN's generator and
the two training scripts). From it: convolutions of 5 x 5, stride 2 and padding 2, to 64, 128, 256
channels; full layers of 1024 and 1024; 512 identity and 512 pose units; three actions, clockwise,
none, counter-clockwise, which choose by a tensor product the matrix that turns the pose; decoder
layers of 1024 and 1024, then 16,384 as 256 x 8 x 8 for the image and 8,192 as 128 x 8 x 8 for the
mask of what is not background, and three fixed upsamplings with a convolution of 5 x 5 each; ReLU
between all; weights uniform in +-sqrt(3 / inputs). Squared error of image and mask over all steps,
the image's weighing 10. Pixels in [0, 1]. Pairs of equal views are learned too, with the action
"none".

The paper trains by a curriculum: one rotation, then 2, 4, 8, 16, each begun with the last one's
weights. Here each is an experiment of its own: `rotations`, and `init_from` the one before.

Where this differs from the code, and why:
- Upsampling sets a pixel in the corner of 2 x 2 zeros, and a convolution follows: together that is
  a transposed convolution of stride 2, which is what stands here; as is the code's subsampling,
  after convolutions of stride 1 in its first network, a stride of 2.
- No dropout (the code has it behind every full layer): a comparator with fewer parts.
- The errors are sums over pixels and steps, means over clips.
- "None" is one more branch from the first frame's pose, to the first frame; so what is made is as
  long as the clip. The code learns it as pairs among the others.
- The mask of real frames is where they are further than 8 levels of 255 from the background, not
  where they are not quite black: JPEG leaves traces.

Legend: b clips, c colours, t frames, h rows, w columns, a attributes, u units, p actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.bounds import require_least
from models.learner import Learner

CLOCKWISE, NONE, COUNTER = 0, 1, 2
_NEAR = 8 / 255  # how far from the background a pixel may be and still be it


@dataclass(frozen=True, kw_only=True)
class DeepRotatorConfig:
    """Deep Rotator's shape; the defaults are the code's.

    frames: of a clip. rotations: how many steps from the first frame are learned; no weight depends
    on it. width: channels of the first convolution. units: of identity, and of pose; full layers
    have twice as many. direction: the place of the direction among a clip's attributes, 0 there
    being clockwise and 1 counter-clockwise. background: around the chairs. image_weight: of the
    image's squared error against the mask's.
    """

    size: ClassVar[int] = 64

    frames: int = 16
    rotations: int = 15
    width: int = 64
    units: int = 512
    direction: int = 0
    background: Literal["white", "black"] = "white"
    image_weight: float = 10.0

    def __post_init__(self) -> None:
        require_least(self, {"frames": 2, "rotations": 1, "width": 2, "units": 1})
        if self.rotations >= self.frames:
            raise ValueError(
                f"rotations={self.rotations!r}: must be less than frames={self.frames}"
            )
        require_least(self, {"direction": 0}, what="")
        if not 0 < self.image_weight < math.inf:
            raise ValueError(f"image_weight={self.image_weight!r}: must be finite, more than 0")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips it learns from and makes."""
        return (self.frames, self.size, self.size, 3)

    def build(self) -> DeepRotator:
        """The learner, freshly initialised from torch's default generator."""
        return DeepRotator(self)


class Turn(nn.Module):
    """The tensor product: (pose_bu, action_bp one-hot) -> the pose turned, (B, U), with one matrix
    for each action, side by side, and one bias for all."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.matrices = nn.Linear(3 * units, units)

    def forward(self, pose_bu: Tensor, action_bp: Tensor) -> Tensor:
        outer_bx = (action_bp[:, :, None] * pose_bu[:, None]).flatten(1)
        turned_bu: Tensor = self.matrices(outer_bx)
        return turned_bu.relu()


class Picture(nn.Module):
    """One of the decoder's two branches: (N, 2 units) -> (N, outputs, 64, 64), not bounded."""

    def __init__(self, units: int, width: int, outputs: int) -> None:
        super().__init__()
        self.map = nn.Linear(2 * units, 4 * width * 64)
        layers: list[nn.Module] = []
        for c_in, c_out in ((4 * width, 2 * width), (2 * width, width), (width, outputs)):
            layers += [nn.ReLU(), nn.ConvTranspose2d(c_in, c_out, 5, 2, 2, output_padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, code_nu: Tensor) -> Tensor:
        picture: Tensor = self.layers(self.map(code_nu).view(len(code_nu), -1, 8, 8))
        return picture


class Rotator(nn.Module):
    """(still_bchw in [0, 1], actions_btp one-hot) -> {"image": (B, 1 + T, 3, 64, 64), "mask": (B, 1
    + T, 1, 64, 64)}: the still with no action, then after each action."""

    def __init__(self, config: DeepRotatorConfig) -> None:
        super().__init__()
        width, units = config.width, config.units
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(c_in, c_out, 5, 2, 2), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(4 * width * 64, 2 * units), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Linear(2 * units, 2 * units), nn.ReLU())
        self.identity = nn.Sequential(nn.Linear(2 * units, units), nn.ReLU())
        self.pose = nn.Sequential(nn.Linear(2 * units, units), nn.ReLU())
        self.turn = Turn(units)
        layers = [nn.Linear(2 * units, 2 * units), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Linear(2 * units, 2 * units), nn.ReLU())
        self.image = Picture(units, width, 3)
        self.mask = Picture(units, width // 2, 1)
        self.apply(_initialise)
        nn.init.uniform_(self.turn.matrices.weight, -math.sqrt(3 / units), math.sqrt(3 / units))

    def forward(self, still_bchw: Tensor, actions_btp: Tensor) -> dict[str, Tensor]:
        B, T = actions_btp.shape[:2]
        code_bu = self.encoder(still_bchw)
        pose_bu = self.pose(code_bu)
        none_bp = torch.zeros_like(actions_btp[:, 0])
        none_bp[:, NONE] = 1
        poses = [self.turn(pose_bu, none_bp)]
        for action_bp in actions_btp.unbind(1):
            pose_bu = self.turn(pose_bu, action_bp)
            poses.append(pose_bu)
        identity_btu = self.identity(code_bu)[:, None].expand(-1, T + 1, -1)
        both_nu = torch.cat([identity_btu, torch.stack(poses, 1)], 2).flatten(0, 1)
        drawn_nu = self.decoder(both_nu)
        parts = {"image": self.image(drawn_nu), "mask": self.mask(drawn_nu)}
        return {name: part.float().view(B, T + 1, -1, 64, 64) for name, part in parts.items()}


def _initialise(layer: nn.Module) -> None:
    """As Caffe's "xavier": uniform in +-sqrt(3 / inputs); biases 0."""
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        transposed = isinstance(layer, nn.ConvTranspose2d)
        inputs = layer.weight.numel() // layer.weight.shape[1 if transposed else 0]
        nn.init.uniform_(layer.weight, -math.sqrt(3 / inputs), math.sqrt(3 / inputs))
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


class DeepRotator(Learner):
    """Minimises image_weight x image + mask, squared errors of the first frame and of `rotations`
    that follow. A clip whose direction is -1, unknown, counts for nothing."""

    kind = "future"
    goes_on = True
    phases = ("rotator",)
    conditions = ("attributes_ba",)
    needs_clips = True

    def __init__(self, config: DeepRotatorConfig) -> None:
        super().__init__()
        self.config = config
        self.rotator = Rotator(config)

    def blank(self, count: int) -> dict[str, Tensor]:
        """Clips that turn clockwise."""
        shape = (count, self.config.direction + 1)
        return {"attributes_ba": torch.zeros(shape, dtype=torch.int64)}

    def loss(
        self,
        phase: str,
        video_bcthw: Tensor,
        noise: Tensor,  # noqa: ARG002
        **conditions: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """loss; image and mask, the squared errors of pixels in [0, 1], summed over a clip; means
        over the clips. conditions: attributes_ba, int64 (B, A)."""
        assert phase in self.phases, f"phase={phase!r}: only {self.phases} are trained"
        steps = self.config.rotations
        actions_btp, known_b = self._actions(conditions["attributes_ba"], steps)
        real_btchw = (video_bcthw[:, :, : steps + 1].float().transpose(1, 2) + 1) / 2
        made = self.call("rotator", real_btchw[:, 0], actions_btp)
        wrong = {"image": made["image"] - real_btchw, "mask": made["mask"] - self.mask(real_btchw)}
        sums = {
            name: (each.square().flatten(1).sum(1) * known_b).mean() for name, each in wrong.items()
        }
        loss = self.config.image_weight * sums["image"] + sums["mask"]
        return loss, {name: value.detach() for name, value in ({"loss": loss} | sums).items()}

    def mask(self, real_btchw: Tensor) -> Tensor:
        """(B, T, 1, H, W): 1 where a frame in [0, 1] is not background, else 0."""
        background = 1.0 if self.config.background == "white" else 0.0
        return ((real_btchw.mean(2, keepdim=True) - background).abs() > _NEAR).float()

    def _actions(self, attributes: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """(actions one-hot (B, steps, 3), whether they are known (B,)) of attributes (B, A), or of
        (B, T, A): the direction at a frame is that of the turn to it."""
        if attributes.dim() == 2:
            attributes = attributes[:, None].expand(-1, steps + 1, -1)
        way_bt = attributes[:, 1 : steps + 1, self.config.direction]
        place_bt = torch.where(way_bt == 1, COUNTER, torch.where(way_bt == 0, CLOCKWISE, NONE))
        actions_btp = place_bt[..., None] == torch.arange(3, device=attributes.device)
        return actions_btp.float(), (way_bt >= 0).all(1)

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,  # noqa: ARG002
        video_bcthw: Tensor | None = None,
        **conditions: Tensor,
    ) -> dict[str, Tensor]:
        """Videos (B, 3, T, 64, 64) in [-1, 1] by name, which begin with the clips' first frames.

        "sample"; of whole clips "real"; and "mask", as grey. attributes_ba: int64 (B, A), or (B, T,
        A) for a direction that changes, -1 for no turn; without it all turn clockwise. Raises
        ValueError without clips.
        """
        if video_bcthw is None:
            raise ValueError("a rotation goes on from an image: give clips, or single frames")
        blank = self.blank(len(video_bcthw))["attributes_ba"].to(video_bcthw.device)
        given = conditions.get("attributes_ba", blank)
        actions_btp, _ = self._actions(given, self.config.frames - 1)
        made = self.rotator((video_bcthw[:, :, 0] + 1) / 2, actions_btp)
        shown = {name: part.transpose(1, 2).clamp(0, 1) * 2 - 1 for name, part in made.items()}
        parts = {"sample": shown["image"]}
        if video_bcthw.shape[2] > 1:
            parts["real"] = video_bcthw
        return parts | {"mask": shown["mask"].expand_as(parts["sample"])}
