"""Holds the camera still: VGAN section 3 and the published `stabilize_videos_many.py`.

Neighbouring frames are registered by a homography on matched points, the homographies are
multiplied up to the clip's first frame, every frame is warped onto it, and what the camera no
longer sees is filled from the previous *output* frame. A clip with one bad registration is dropped.

Three ways to register a pair; they share everything else:

    sift      SIFT at the source's size: the paper's; the reference, and by far the slowest
    sift320   SIFT on a copy of at most 320 px, the homography rescaled (`registration_px`)
    lk        corners followed by pyramidal Lucas-Kanade optical flow, same copy; not the paper's

`none` holds nothing still: it only crops and scales, in the same way.

As published: ratio test 0.7, at least 10 matches, and for `sift` RANSAC within 5 px.
Different, and why:
- On the small copy RANSAC holds matches to 0.75 px: at 5 px what moves slowly in the foreground
  passes for background and drags it along (tests/shards/ingest/test_stabilize.py measures this).
- On the small copy at most 500 points are described, the strongest: more cost time and pin the
  picture down no better (bench/stabilize.py). A point is described once, for both of its pairs.
- Warping happens at twice the output's size, on frames that were area-averaged to it, and the
  result is averaged 2x2: the published chain (warp, 128 px, then 2x2 mean) without the full size.
- Matching is exact instead of FLANN's approximate trees, so equal input gives equal bytes.
- The paper drops segments of "too large re-projection error"; the published code has no such test.
  Here: fewer than 10 RANSAC inliers, or under a quarter of the matches, or a frame that jumps by
  more than a quarter of its size, or one left covering under half of the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from shards.recipe import Backend
from shards.video import Image, Picture

cv2.setNumThreads(1)

Points = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

RATIO = 0.7
MIN_MATCHES = 10
MIN_INLIER_RATIO = 0.25
MAX_POINTS: dict[Backend, int] = {"sift": 0, "sift320": 500}  # 0: all there are, as published
RANSAC_PX: dict[Backend, float] = {"sift": 5.0, "sift320": 0.75, "lk": 0.75}
MAX_JUMP = 0.25
MIN_COVERAGE = 0.5
SUPERSAMPLE = 2
"""The canvas a frame is warped on is this many times the output's size."""


class ClipRejectedError(Exception):
    """A clip cannot be held still. `reason` is one word for counting, `frame` where it broke."""

    def __init__(self, reason: str, frame: int, detail: str) -> None:
        super().__init__(f"frame {frame}: {detail}")
        self.reason = reason
        self.frame = frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """The worst of a clip's registrations; pixels are the output's.

    min_inliers, min_inlier_ratio: over pairs of neighbours. max_error_px: mean distance of a
    pair's inliers after registration. max_shift_px: the farthest an output corner was moved.
    min_coverage: share of the output that the frame still covered, 0 to 1.
    """

    min_inliers: int
    min_inlier_ratio: float
    max_error_px: float
    max_shift_px: float
    min_coverage: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stabilized:
    """clip: (T, S, S, 3) uint8. to_first: (T, 3, 3), frame t's output pixels to frame 0's."""

    clip: Image
    to_first: Matrix
    quality: Quality


def registration_px(backend: Backend) -> int | None:
    """The longest side of the picture a backend registers on; None for the source's size."""
    return None if backend == "sift" else 320


def stabilize(pictures: Sequence[Picture], *, backend: Backend, size_px: int) -> Stabilized:
    """One clip of `pictures`, held still on the first, centre-cropped to `size_px` squared.

    The pictures' canvases have a short side of SUPERSAMPLE * size_px. Raises ClipRejectedError with
    reason `few_features`, `few_matches`, `no_homography`, `too_wild` or `out_of_view`; with `none`
    never.
    """
    if backend == "none":
        return _as_filmed(pictures, size_px)
    first, size = pictures[0], size_px * SUPERSAMPLE
    crop = _crop(first, size)
    to_output = crop @ _scaling(first.gray.shape, first.canvas.shape)
    from_output = np.linalg.inv(to_output)
    canvas, _ = _laid_over(np.zeros((size, size, 3), np.uint8), first.canvas, crop)
    clip, transforms, to_first, worst = [_halved(canvas)], [np.eye(3)], np.eye(3), _Worst()
    for number, step in enumerate(_steps(pictures, backend), start=1):
        if step is None:
            clip.append(clip[-1])
            transforms.append(transforms[-1])
            continue
        to_first = _normal(to_first @ step.to_previous)
        moved = _normal(to_output @ to_first @ from_output)
        canvas, coverage = _laid_over(canvas, pictures[number].canvas, moved @ crop)
        if coverage < MIN_COVERAGE:
            seen = f"covers {coverage:.0%} of the first frame's view"
            raise ClipRejectedError("out_of_view", number, seen)
        clip.append(_halved(canvas))
        transforms.append(_at_output_size(moved))
        shift = _corner_shift(transforms[-1], size_px, size_px)
        worst.add(step, float(to_output[0, 0]) / SUPERSAMPLE, shift, coverage)
    return Stabilized(clip=np.stack(clip), to_first=np.stack(transforms), quality=worst.quality())


def _as_filmed(pictures: Sequence[Picture], size_px: int) -> Stabilized:
    size = size_px * SUPERSAMPLE
    blank = np.zeros((size, size, 3), np.uint8)
    clip = np.stack([_halved(_laid_over(blank, p.canvas, _crop(p, size))[0]) for p in pictures])
    still = np.stack([np.eye(3)] * len(clip))
    return Stabilized(clip=clip, to_first=still, quality=_Worst().quality())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """A frame registered to the one before, in pixels of `gray`; error: the inliers' mean."""

    to_previous: Matrix
    matches: int
    inliers: int
    error_px: float


def _steps(pictures: Sequence[Picture], backend: Backend) -> Iterator[_Step | None]:
    """From each picture but the first to the one before; None where it is the very same."""
    registrar: _Registrar = _Flow() if backend == "lk" else _Sift(MAX_POINTS[backend])
    seen = registrar.look(pictures[0].gray, 0)
    for number, (last, now) in enumerate(pairwise(pictures), start=1):
        if now is last:  # the grid repeats a picture of a slower source
            yield None
            continue
        sees = registrar.look(now.gray, number)
        old, new = registrar.match(seen, sees)
        seen = sees
        if len(new) < MIN_MATCHES:
            raise ClipRejectedError("few_matches", number, f"{len(new)} of {MIN_MATCHES} matches")
        yield _step(new, old, now.gray.shape, number, RANSAC_PX[backend])


def _step(new: Points, old: Points, shape: tuple[int, ...], number: int, within_px: float) -> _Step:
    found, used = cv2.findHomography(new, old, cv2.RANSAC, within_px, maxIters=2000)
    inliers = 0 if found is None else int(used.sum())
    if inliers < max(MIN_MATCHES, MIN_INLIER_RATIO * len(new)):
        raise ClipRejectedError("no_homography", number, f"{inliers} of {len(new)} matches agree")
    height, width = shape
    jump = _corner_shift(found, width, height)
    if not jump <= MAX_JUMP * min(width, height):
        raise ClipRejectedError("too_wild", number, f"a corner jumps by {jump:.0f} px of {width}")
    kept = used[:, 0] > 0
    there = cv2.perspectiveTransform(new[kept][None], found)[0]
    error = float(np.linalg.norm(there - old[kept], axis=1).mean())
    return _Step(to_previous=found, matches=len(new), inliers=inliers, error_px=error)


class _Registrar(Protocol):
    """One way to find the same points in two pictures."""

    def look(self, gray: Image, number: int) -> Any:
        """What will be needed of a picture, once; it serves both of its pairs."""
        ...

    def match(self, old: Any, new: Any) -> tuple[Points, Points]:
        """(points of old, points of new), both (N, 2), in pixels."""
        ...


class _Sift:
    def __init__(self, most: int) -> None:
        self._sift = cv2.SIFT_create(nfeatures=most)  # type: ignore[attr-defined]

    def look(self, gray: Image, number: int) -> tuple[Points, Points]:
        points, described = self._sift.detectAndCompute(gray, None)
        if described is None or len(points) < MIN_MATCHES:
            raise ClipRejectedError("few_features", number, f"{len(points)} SIFT points")
        return np.array([point.pt for point in points], np.float32), described

    def match(self, old: tuple[Points, Points], new: tuple[Points, Points]) -> Any:
        # SIFT descriptors are whole numbers below 256, so these float32 products and sums are
        # exact and do not depend on the order a BLAS adds them in.
        old_d, new_d = old[1], new[1]
        squares = np.square(old_d).sum(1)[None, :] - 2 * (new_d @ old_d.T)
        rows = np.arange(len(new_d))
        best = squares.argmin(1)
        nearest = squares[rows, best].copy()
        squares[rows, best] = np.inf
        own = np.square(new_d).sum(1)
        good = nearest + own < RATIO**2 * (squares.min(1) + own)
        return old[0][best[good]], new[0][good]


class _Flow:
    def look(self, gray: Image, number: int) -> tuple[Image, Points]:
        corners = cv2.goodFeaturesToTrack(gray, 400, 0.01, 6)
        if corners is None or len(corners) < MIN_MATCHES:
            found = 0 if corners is None else len(corners)
            raise ClipRejectedError("few_features", number, f"{found} corners")
        return gray, corners.reshape(-1, 2)

    def match(self, old: tuple[Image, Points], new: tuple[Image, Points]) -> Any:
        there, found, _ = cv2.calcOpticalFlowPyrLK(old[0], new[0], old[1], None)
        back, returned, _ = cv2.calcOpticalFlowPyrLK(new[0], old[0], there, None)
        # A point that does not come back to where it started was lost on the way.
        good = (found & returned)[:, 0] > 0
        good &= np.abs(back - old[1]).max(1) < 0.5
        return old[1][good], there[good]


@dataclass(kw_only=True, slots=True)
class _Worst:
    inliers: int = 1 << 30
    ratio: float = 1.0
    error_px: float = 0.0
    shift_px: float = 0.0
    coverage: float = 1.0

    def add(self, step: _Step, scale: float, shift_px: float, coverage: float) -> None:
        self.inliers = min(self.inliers, step.inliers)
        self.ratio = min(self.ratio, step.inliers / step.matches)
        self.error_px = max(self.error_px, step.error_px * scale)
        self.shift_px = max(self.shift_px, shift_px)
        self.coverage = min(self.coverage, coverage)

    def quality(self) -> Quality:
        return Quality(
            min_inliers=self.inliers if self.inliers < 1 << 30 else 0,
            min_inlier_ratio=round(self.ratio, 3),
            max_error_px=round(self.error_px, 3),
            max_shift_px=round(self.shift_px, 2),
            min_coverage=round(self.coverage, 3),
        )


def _corner_shift(matrix: Matrix, width: int, height: int) -> float:
    """The farthest that `matrix` moves a corner; infinite where it turns the picture inside out."""
    corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)], float)
    x, y, w = matrix @ corners.T
    if w.min() <= 0:
        return float("inf")
    return float(np.hypot(x / w - corners[:, 0], y / w - corners[:, 1]).max())


def _scaling(from_size: tuple[int, ...], to_size: tuple[int, ...]) -> Matrix:
    """Pixel coordinates of one size of an image to another's; (0, 0) is a pixel's centre."""
    y, x = (b / a for a, b in zip(from_size[:2], to_size[:2], strict=True))
    return np.array([(x, 0, (x - 1) / 2), (0, y, (y - 1) / 2), (0, 0, 1)], float)


def _crop(picture: Picture, size: int) -> Matrix:
    """Canvas pixels to the pixels of its centre square."""
    height, width = picture.canvas.shape[:2]
    return np.array(
        [(1, 0, -((width - size) // 2)), (0, 1, -((height - size) // 2)), (0, 0, 1)], float
    )


def _at_output_size(moved: Matrix) -> Matrix:
    halve = _scaling((SUPERSAMPLE, SUPERSAMPLE), (1, 1))
    return _normal(halve @ moved @ np.linalg.inv(halve))


def _normal(matrix: Matrix) -> Matrix:
    result: Matrix = matrix / matrix[2, 2]
    return result


def _laid_over(under: Image, canvas: Image, matrix: Matrix) -> tuple[Image, float]:
    """`canvas` through `matrix` on top of `under`, and the share it covers, 0 to 1.

    Pixels that would blend with what is outside of the canvas are left as they were.
    """
    size = (under.shape[1], under.shape[0])
    warped = cv2.warpPerspective(canvas, matrix, size, flags=cv2.INTER_LINEAR)
    inside = np.full(canvas.shape[:2], 255, np.uint8)
    mask = cv2.warpPerspective(inside, matrix, size, flags=cv2.INTER_LINEAR) == 255
    return np.where(mask[..., None], warped, under), float(mask.mean())


def _halved(canvas: Image) -> Image:
    size = canvas.shape[0] // SUPERSAMPLE
    halved: Image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return halved
