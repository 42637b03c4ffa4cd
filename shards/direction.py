"""Which way somebody goes through a clip, from its pixels: the camera stands still.

What moves is where a frame differs from the one before. Over these pixels one translation for each
pair of frames is fitted to the brightness, by least squares (Lucas and Kanade 1981): limbs that
swing to and fro cancel out, the body does not. A clip whose fitted steps add up to less than
LEAST_TRAVEL of its width, or are not STEADY, says nothing, and neither does one nearly all of which
moves: then the camera did. tests/shards/ingest/test_direction.py measures this on rendered walkers.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from shards.clip import grey
from shards.stabilize import ClipRejectedError
from shards.video import Image

WAYS = ("left to right", "right to left")
BLUR = 1 / 40  # of the picture's width: a step is to be shorter than what is blurred
LEAST_CHANGE = 3  # grey levels of 255, after the blur: above the noise of camera and codec
LEAST_AREA = 0.003  # of the picture, for a pair of frames in which somebody moves
MOST_AREA = 0.5
LEAST_TRAVEL = 0.03  # of the picture's width, over the clip: half of a slow walk in 10 frames
STEADY = 2.0  # the steps' mean by their standard deviation


def direction(clip: Image) -> str:
    """One of WAYS, for a clip (T, S, S, C) of at least 4 frames.

    Raises ClipRejectedError: `nobody_moves` in a third of the clip or more, or `unclear_direction`.
    """
    size = clip.shape[2]
    soft = [cv2.GaussianBlur(f, (0, 0), BLUR * size) for f in grey(clip)[..., 0].astype(np.float32)]
    frames = np.stack(soft)
    changed = np.abs(np.diff(frames, axis=0)) > LEAST_CHANGE
    area = changed.mean((1, 2))
    moving = int((area >= LEAST_AREA).sum())
    if moving < max(3, 2 / 3 * len(area)):
        raise ClipRejectedError("nobody_moves", 0, f"something moves in {moving} of {len(area)}")
    if np.median(area) > MOST_AREA:
        raise ClipRejectedError("unclear_direction", 0, f"{np.median(area):.0%} of it moves")
    steps = np.array([_step(*each) for each in zip(frames, frames[1:], changed, strict=False)])
    travel, spread = float(steps.sum()) / size, float(steps.std())
    if abs(travel) < LEAST_TRAVEL or abs(float(steps.mean())) < STEADY * spread:
        said = f"goes {travel:+.3f} of the width, by {steps.mean():+.2f} +- {spread:.2f} px a frame"
        raise ClipRejectedError("unclear_direction", 0, said)
    return WAYS[0] if travel > 0 else WAYS[1]


def _step(
    before: npt.NDArray[np.float32], after: npt.NDArray[np.float32], where: npt.NDArray[np.bool_]
) -> float:
    """Pixels to the right that what is there has moved by, from one frame to the next."""
    middle = (before + after) / 2
    slope = np.stack(
        [cv2.Sobel(middle, cv2.CV_32F, x, 1 - x, scale=1 / 8)[where] for x in (1, 0)]
    ).astype(np.float64)
    # One is added to the squares: nothing is so flat that this divides by zero.
    normal = slope @ slope.T + np.eye(2)
    return float(-np.linalg.solve(normal, slope @ (after - before)[where])[0])
