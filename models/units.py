"""What hidden units fire on (VGAN, Figure 6): the clips and the regions that activate each most.

The paper shows units of the third convolutional layer of the future model's encoder, "following the
technique from [54]" (Zhou et al., Object Detectors Emerge in Deep Scene CNNs), where a region is a
unit's receptive field. The networks here are plain rows of convolutions, of images or of video, so
that a region is known exactly from kernels, strides and padding.

Legend: b clips, u units (channels of a layer), k places in a unit's ranking.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.learner import evaluating

_Convolution = nn.Conv2d | nn.Conv3d
_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True, kw_only=True)
class Firing:
    """A unit's largest activation in one clip, and the region of the clip that it is of.

    clip: its place among all that were given. region: by axis, as slices of the clip's axes after
    the channels; the receptive field, less what is padding.
    """

    clip: int
    activation: float
    region: tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Field:
    """Along one axis: position p of a layer sees `size` inputs from p * step - before on.

    Negative inputs and those beyond the last are padding.
    """

    size: int = 1
    step: int = 1
    before: int = 0

    def behind(self, kernel: int, stride: int, padding: int) -> Field:
        """The field of the layer that such a convolution makes of this one."""
        return Field(
            size=self.size + (kernel - 1) * self.step,
            step=self.step * stride,
            before=self.before + padding * self.step,
        )

    def region(self, position: int, length: int) -> slice:
        """What the position sees of an input of `length`."""
        first = position * self.step - self.before
        return slice(max(0, first), min(length, first + self.size))


def layers(network: nn.Sequential, number: int) -> nn.Sequential:
    """The first `number` convolutions of a network, each with what follows it.

    Raises ValueError where there are not so many.
    """
    convolutions = [n for n, layer in enumerate(network) if isinstance(layer, _Convolution)]
    if not 1 <= number <= len(convolutions):
        raise ValueError(f"layer={number}: must be between 1 and {len(convolutions)}")
    ends = [*convolutions[1:], len(network)]
    return nn.Sequential(*list(network)[: ends[number - 1]])


def fields(network: nn.Sequential) -> tuple[Field, ...]:
    """The receptive field of the network's outputs, by axis.

    Raises ValueError for layers that it does not know the field of.
    """
    convolutions = [layer for layer in network if isinstance(layer, _Convolution)]
    other = [layer for layer in network if not isinstance(layer, (_Convolution, *_ELEMENTWISE))]
    if other or not convolutions:
        raise ValueError(f"{[type(layer).__name__ for layer in other]}: only convolutions in a row")
    out = [Field() for _ in convolutions[0].kernel_size]
    for layer in convolutions:
        assert not isinstance(layer.padding, str), "padding is given in numbers"
        assert set(layer.dilation) == {1}, "there is no dilation"
        shape = zip(layer.kernel_size, layer.stride, layer.padding, strict=True)
        out = [field.behind(*axis) for field, axis in zip(out, shape, strict=True)]
    return tuple(out)


@torch.no_grad()
def strongest(
    network: nn.Sequential,
    batches: Iterable[Tensor],
    *,
    layer: int = 3,
    top: int = 8,
    units: int | None = None,
) -> dict[int, list[Firing]]:
    """By unit of the layer its `top` strongest clips, the strongest first.

    network: D's or the classifier's `features` for clips (B, 3, T, H, W), the future model's
    `encoder` for images (B, 3, H, W), in [-1, 1]; it runs on running statistics, and activations
    are taken behind the layer's nonlinearity. batches: at least one, all of one shape but for B.
    units: at most so many, those first whose strongest clips stand out most: by how many standard
    deviations over all clips they lie above the mean. The paper's were chosen by eye. None for all.
    """
    part = layers(network, layer)
    by_axis = fields(part)
    lengths = spread = torch.Size()
    values, positions = [], []
    with evaluating(part):
        for batch in batches:
            activations = part(batch)
            lengths, spread = batch.shape[2:], activations.shape[2:]
            value_bu, position_bu = activations.flatten(2).max(2)
            values.append(value_bu.float().cpu())
            positions.append(position_bu.cpu())
    value_un = torch.cat(values).T
    value_uk, clip_uk = value_un.topk(min(top, value_un.shape[1]), 1)
    chosen = list(range(len(value_un)))
    if units is not None:
        above_u = value_uk.mean(1) - value_un.mean(1)
        standing_out_u = above_u / value_un.std(1, correction=0).clamp_min(1e-12)
        chosen = standing_out_u.argsort(descending=True, stable=True)[:units].tolist()
    position_uk = torch.cat(positions).T.gather(1, clip_uk)
    place_uka = torch.stack(torch.unravel_index(position_uk, spread), 2)

    def firing(u: int, k: int) -> Firing:
        places = zip(by_axis, place_uka[u, k].tolist(), lengths, strict=True)
        return Firing(
            clip=int(clip_uk[u, k]),
            activation=float(value_uk[u, k]),
            region=tuple(field.region(place, length) for field, place, length in places),
        )

    return {u: [firing(u, k) for k in range(value_uk.shape[1])] for u in chosen}


def lit(clip: Tensor, region: tuple[slice, ...]) -> Tensor:
    """The clip (C, T, H, W) or image (C, H, W) in [-1, 1], at a quarter outside the region."""
    out = (clip + 1) / 4 - 1
    inside = (slice(None), *region)
    out[inside] = clip[inside]
    return out
