"""Gaussian attention windows over frames: reading a grid of points, and writing one (DRAW's).

A window is a grid of K points an axis, evenly spaced, each a Gaussian of one variance. Along an
axis of length A it is a filterbank F of K rows: F[u, a] is proportional to exp(-(a - mu_u)^2 / (2
sigma^2)), a = 1..A, every row normalised to 1 (Sync-DRAW 2017, Eq. 1 to 4). Sync-DRAW gives every
frame a window of its own, all moved at once.

Two of the paper's symbols are slips, and are read as in DRAW: what its equations for the stride and
for mu_u call N, the number of frames, is K, the points of the grid.

Legend: b clips, n frames, c channels, h rows, w columns, a places along an axis, u, v, k points of
the grid along rows, columns, frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

WINDOW = 5  # parameters of a flat window: two centres, log variance, log stride, log gain
CUBOID = 8  # of one through time too: three centres, variance and stride in space, in time, gain


class Window(NamedTuple):
    """A flat window a frame. rows_bnuh, columns_bnvw: its filterbanks. gain_bn: its weight."""

    rows_bnuh: Tensor
    columns_bnvw: Tensor
    gain_bn: Tensor


class Cuboid(NamedTuple):
    """One window through all frames. times_bkn, rows_buh, columns_bvw: its filterbanks."""

    times_bkn: Tensor
    rows_buh: Tensor
    columns_bvw: Tensor
    gain_b: Tensor


def filterbank(
    centre: Tensor, stride: Tensor, log_variance: Tensor, points: int, length: int
) -> Tensor:
    """(..., points, length): rows that sum to 1, of a window centred at `centre`, from 1 to length.

    centre, stride: in places, (...,). Computed in float32, whatever autocast says.
    """
    with torch.autocast(centre.device.type, enabled=False):
        u = torch.arange(1, points + 1, device=centre.device) - points / 2 - 0.5
        a = torch.arange(1, length + 1, device=centre.device, dtype=torch.float32)
        mu = centre.float()[..., None] + u * stride.float()[..., None]
        near = -((a - mu[..., None]) ** 2) / (2 * log_variance.float().exp()[..., None, None])
        # A softmax normalises without dividing by the nothing that is left of a far Gaussian.
        return near.softmax(-1)


def _place(relative: Tensor, length: int) -> Tensor:
    """-1..1 to 0..length + 1, the middle at the middle."""
    return (length + 1) / 2 * (relative + 1)


def _spacing(log_stride: Tensor, length: int, points: int) -> Tensor:
    """At 0 the grid spans the axis."""
    return (length - 1) / max(1, points - 1) * log_stride.exp()


def window(parameters_bn5: Tensor, points: int, height: int, width: int) -> Window:
    """The windows of (B, N, 5): columns' centre, rows' centre, log variance, log stride, log gain.

    All are relative, so that zeros span the frame with unit variance and gain.
    """
    column, row, log_variance, log_stride, log_gain = parameters_bn5.float().unbind(-1)
    stride = _spacing(log_stride, max(height, width), points)
    return Window(
        rows_bnuh=filterbank(_place(row, height), stride, log_variance, points, height),
        columns_bnvw=filterbank(_place(column, width), stride, log_variance, points, width),
        gain_bn=log_gain.exp(),
    )


def read(video_bnchw: Tensor, at: Window) -> Tensor:
    """(B, N, C, K, K): what the windows see, times their gains (Eq. 5). Two matrix products."""
    seen = at.rows_bnuh[:, :, None] @ video_bnchw @ at.columns_bnvw[:, :, None].mT
    return seen * at.gain_bn[:, :, None, None, None]


def write(patch_bncuv: Tensor, at: Window) -> Tensor:
    """(B, N, C, H, W): patches laid where the windows are, over their gains (Eq. 9)."""
    laid = at.rows_bnuh[:, :, None].mT @ patch_bncuv @ at.columns_bnvw[:, :, None]
    return laid / at.gain_bn[:, :, None, None, None]


def cuboid(parameters_b8: Tensor, points: int, frames: int, height: int, width: int) -> Cuboid:
    """The windows of (B, 8): centres of columns, rows and frames, log variance and log stride in
    space, the same two in time, log gain. At zero they span the video."""
    column, row, time, log_variance, log_stride, log_variance_t, log_stride_t, log_gain = (
        parameters_b8.float().unbind(-1)
    )
    stride = _spacing(log_stride, max(height, width), points)
    stride_t = _spacing(log_stride_t, frames, points)
    return Cuboid(
        times_bkn=filterbank(_place(time, frames), stride_t, log_variance_t, points, frames),
        rows_buh=filterbank(_place(row, height), stride, log_variance, points, height),
        columns_bvw=filterbank(_place(column, width), stride, log_variance, points, width),
        gain_b=log_gain.exp(),
    )


def read_cuboid(video_bnchw: Tensor, at: Cuboid) -> Tensor:
    """(B, K, C, K, K): as `read`, and then along time."""
    seen: Tensor = at.rows_buh[:, None, None] @ video_bnchw @ at.columns_bvw[:, None, None].mT
    flat_bkx = at.times_bkn @ seen.flatten(2)
    through = flat_bkx.view(*flat_bkx.shape[:2], *seen.shape[2:])
    return through * at.gain_b[:, None, None, None, None]


def write_cuboid(patch_bkcuv: Tensor, at: Cuboid) -> Tensor:
    """(B, N, C, H, W): as `write`, spread along time first."""
    flat_bnx = at.times_bkn.mT @ patch_bkcuv.flatten(2)
    spread = flat_bnx.view(*flat_bnx.shape[:2], *patch_bkcuv.shape[2:])
    laid: Tensor = at.rows_buh[:, None, None].mT @ spread @ at.columns_bvw[:, None, None]
    return laid / at.gain_b[:, None, None, None, None]
