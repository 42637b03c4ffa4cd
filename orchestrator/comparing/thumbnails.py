"""Samples that a run has shown, small enough that many fit one page: animated and still WebP.

The grids of `orchestrator.pictures` are cut into their clips again, at the pixels they had before
they were magnified.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from orchestrator.pictures import GAP, PAPER, ZOOM, Pixels, evenly_spaced

_COLUMNS = (4, 3, 2, 1)  # of a grid: four, unless there are fewer clips
_MOST_ROWS = 16
_QUALITIES, _STRIDES = (80, 50, 25), (1, 2, 4)
_MS = 40  # a frame, as the grids have it


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """moving: clips beside each other. still: of the first ones some frames, time from left to
    right. Both are lossy WebP of `width` x `height` pixels, for `data:` URLs."""

    moving: bytes
    still: bytes
    width: int
    height: int
    still_width: int
    still_height: int


def clips_of_grid(gif: bytes) -> Pixels:
    """The clips of an `animated_grid`, uint8 (N, T, H, W, 3); a picture that is none is one clip.

    Raises ValueError for what is no picture.
    """
    try:
        image = Image.open(io.BytesIO(gif))
        frames = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    except OSError as error:
        raise ValueError(f"the samples are no picture: {error}") from None
    whole = np.stack(frames)
    height, width = whole.shape[1:3]
    for columns in _COLUMNS:
        wide = _side(width, columns)
        counts = sorted(range(1, _MOST_ROWS + 1), reverse=True)
        counts.sort(key=lambda rows: _side(height, rows) != wide)  # clips are mostly square
        for rows in counts if wide else []:
            high = _side(height, rows)
            if high and _has_gaps(whole, rows, columns, high, wide):
                return _cut(whole, rows, columns, high, wide)
    return whole[None]


def thumbnail(clips: Pixels, *, count: int, most_bytes: int) -> Thumbnail:
    """The first `count` of the clips (N, T, H, W, 3) in at most `most_bytes`, where that can be: of
    worse quality, then with every second or fourth frame, where they would be larger."""
    still = _still(clips)
    for stride in _STRIDES:
        moving = _moving(clips[:count, ::stride])
        for quality in _QUALITIES:
            made = _webp(moving, quality, _MS * stride), _webp(still[None], quality, _MS)
            if sum(map(len, made)) <= most_bytes:
                break
        else:
            continue
        break
    return Thumbnail(
        moving=made[0],
        still=made[1],
        width=moving.shape[2],
        height=moving.shape[1],
        still_width=still.shape[1],
        still_height=still.shape[0],
    )


def data_url(webp: bytes) -> str:
    """For an `img` of a page that stands alone."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _side(length: int, count: int) -> int:
    """The side of a magnified clip where so many and their gaps make `length`; 0 where they do not
    come out."""
    if count < 1:
        return 0
    side, left = divmod(length - GAP, count)
    side -= GAP
    return side if left == 0 and side > 0 and side % ZOOM == 0 else 0


def _has_gaps(whole: Pixels, rows: int, columns: int, high: int, wide: int) -> bool:
    across = all((whole[:, n * (high + GAP) :][:, :GAP] == PAPER).all() for n in range(rows + 1))
    down = all(
        (whole[:, :, n * (wide + GAP) :][:, :, :GAP] == PAPER).all() for n in range(columns + 1)
    )
    return across and down


def _cut(whole: Pixels, rows: int, columns: int, high: int, wide: int) -> Pixels:
    clips = []
    for place in range(rows * columns):
        top = GAP + place // columns * (high + GAP)
        left = GAP + place % columns * (wide + GAP)
        clip = whole[:, top : top + high : ZOOM, left : left + wide : ZOOM]
        if place == 0 or not (clip == PAPER).all():  # the last row may not be full
            clips.append(clip)
    return np.stack(clips)


def _moving(clips: Pixels) -> Pixels:
    """(N, T, H, W, 3) to (T, h, w, 3), up to four clips a row."""
    count, T, H, W, _ = clips.shape
    columns = min(4, count)
    rows = -(-count // columns)
    out = np.full((T, rows * (H + 2) - 2, columns * (W + 2) - 2, 3), PAPER, np.uint8)
    for n, clip in enumerate(clips):
        top, left = n // columns * (H + 2), n % columns * (W + 2)
        out[:, top : top + H, left : left + W] = clip
    return out


def _still(clips: Pixels, *, most: int = 2, frames: int = 6) -> Pixels:
    """A row for each of the first clips, their frames from left to right."""
    chosen = clips[:most, evenly_spaced(clips.shape[1], frames)]
    rows = [_moving_row(clip) for clip in chosen]
    gap = np.full((2, rows[0].shape[1], 3), PAPER, np.uint8)
    parts = [part for row in rows for part in (row, gap)]
    return np.concatenate(parts[:-1])


def _moving_row(frames: Pixels) -> Pixels:
    gap = np.full((frames.shape[1], 2, 3), PAPER, np.uint8)
    parts = [part for frame in frames for part in (frame, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _webp(frames: Pixels, quality: int, duration_ms: int) -> bytes:
    out = io.BytesIO()
    first, *others = (Image.fromarray(frame) for frame in frames)
    options = {"quality": quality, "method": 2}
    if others:
        first.save(
            out,
            "WEBP",
            save_all=True,
            append_images=others,
            duration=duration_ms,
            loop=0,
            **options,
        )
    else:
        first.save(out, "WEBP", **options)
    return out.getvalue()
