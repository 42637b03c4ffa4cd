"""Every trial's samples of the same noise in one sheet, ordered along what the sweep varies.

Two parameters whose pairs are each tried once make a grid of rows and columns; else every trial has
its text beside it, ordered by the parameters in the order of the sweep's definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from orchestrator.pictures import PAPER, Pixels, evenly_spaced, gif, png
from orchestrator.sweeping.rows import Axis, Swept, TrialRow, label, measured

MOST_TRIALS = 40
STILLS, STILL_CLIPS = 5, 2  # of each trial in the still sheet: frames of a clip, and clips
MOVING_CLIPS = 4
_MOVING_PIXELS = 12e6  # over all frames: as a GIF of real video about 8 MB
_DOWN = 12  # trials below one another
_GAP, _MARGIN, _LINE, _TEXT, _TITLE = 2, 14, 19, 15, 19
_BEST = (190, 72, 0)

Sheet = tuple[TrialRow, Pixels]
Place = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each trial stands, (row, column). rows, columns: the headings of a grid, else empty."""

    trials: Mapping[Place, TrialRow]
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def gallery(sheets: Sequence[Sheet], swept: Swept, *, fps: float = 25) -> tuple[bytes, bytes]:
    """(a PNG with time from left to right, a GIF that plays) of the trials' samples.

    sheets: trials, each with uint8 clips (N, T, H, W, 3) of one shape, of the same noise. Of more
    than 40 trials the sheet has 40, evenly along their order.
    Raises ValueError for no trial, and for clips of several shapes.
    """
    if not sheets:
        raise ValueError("a gallery needs the samples of at least one trial")
    shapes = sorted({clips.shape[1:] for _, clips in sheets})
    if len(shapes) > 1:
        raise ValueError(f"a gallery needs clips of one shape, not of {shapes[0]} and {shapes[1]}")
    clips = {row.number: each for row, each in sheets}
    layout = arranged([row for row, _ in sheets], swept)
    T, H, W = shapes[0][:3]
    count = min(MOVING_CLIPS, *(len(each) for each in clips.values()))
    pixels = len(layout.trials) * count * H * W
    zoom = max(1, min(128 // H, int((_MOVING_PIXELS / 8 / pixels) ** 0.5)))
    frames = evenly_spaced(T, max(1, int(_MOVING_PIXELS / pixels / zoom**2)))
    rows = 2 if layout.columns and count > 2 else 1

    def still(of: Pixels) -> Pixels:
        chosen = of[:STILL_CLIPS, evenly_spaced(T, STILLS)]
        return _blocks(chosen.reshape(-1, 1, *chosen.shape[2:]), len(chosen), zoom)

    def moving(of: Pixels) -> Pixels:
        return _blocks(of[:count, frames], rows, zoom)

    title = _title(layout, swept, len(sheets))
    played = _page(layout, clips, moving, swept, title)
    shown = _page(layout, clips, still, swept, f"{title}; time from left to right")
    return png(shown[0]), gif(played, fps=fps * len(frames) / T)


def arranged(rows: Sequence[TrialRow], swept: Swept) -> Layout:
    """A grid where two parameters were tried in pairs that fill half of it; else by their order."""
    axes = [Axis(path, rows, kind) for path, kind in swept.kinds.items()]
    axes = [axis for axis in axes if len(axis.levels) > 1]
    if len(axes) == 2 and all(axis.path in row.values for axis in axes for row in rows):
        down, across = axes
        pairs = {
            tuple(axis.levels.index(row.values[axis.path]) for axis in axes): row for row in rows
        }
        if len(pairs) == len(rows) > len(down.levels) * len(across.levels) / 2:
            trials = {(i, j): row for (i, j), row in pairs.items()}
            heads = [
                tuple(f"{swept.short(axis.path)} {label(level)}" for level in axis.levels)
                for axis in axes
            ]
            return Layout(trials=trials, rows=heads[0], columns=heads[1])

    def order(row: TrialRow) -> list[tuple[float, int]]:
        return [
            (axis.at(row.values[axis.path]), 0) if axis.path in row.values else (-1.0, 0)
            for axis in axes
        ] + [(0.0, row.number)]

    ordered = sorted(rows, key=order)
    chosen = [ordered[n] for n in evenly_spaced(len(ordered), MOST_TRIALS)]
    down_px = -(-len(chosen) // -(-len(chosen) // _DOWN))
    return Layout(trials={(n % down_px, n // down_px): row for n, row in enumerate(chosen)})


def _title(layout: Layout, swept: Swept, trials: int) -> str:
    shown = len(layout.trials)
    which = f"{trials} trials" if shown == trials else f"{shown} of {trials} trials, evenly"
    wanted = "lower" if swept.mode == "min" else "higher"
    by = " x ".join(map(swept.short, swept.kinds))
    return f"Samples of the same noise by {by}: {which} ({swept.metric}: {wanted} is better)"


def _blocks(clips: Pixels, rows: int, zoom: int) -> Pixels:
    """(N, F, H, W, 3) to (F, h, w, 3): in so many rows, magnified, with gaps between."""
    count, F, H, W, _ = clips.shape
    columns = -(-count // rows)
    h, w = zoom * H + _GAP, zoom * W + _GAP
    out = np.full((F, rows * h - _GAP, columns * w - _GAP, 3), PAPER, np.uint8)
    for n, clip in enumerate(clips.repeat(zoom, axis=2).repeat(zoom, axis=3)):
        top, left = n // columns * h, n % columns * w
        out[:, top : top + zoom * H, left : left + zoom * W] = clip
    return out


def _page(
    layout: Layout,
    clips: Mapping[int, Pixels],
    show: Callable[[Pixels], Pixels],
    swept: Swept,
    title: str,
) -> Pixels:
    """All trials as `show` shows them, with their text, as (F, rows, cols, 3)."""
    pictures = {at: show(clips[row.number]) for at, row in layout.trials.items()}
    frames, high, wide = next(iter(pictures.values())).shape[:3]
    best = swept.best(list(layout.trials.values()))
    says = {at: _says(row, swept, layout, is_best=row is best) for at, row in layout.trials.items()}
    grid = bool(layout.columns)
    beside = _width(layout.rows if grid else [line for lines in says.values() for line in lines])
    lines = max(map(len, says.values())) * _LINE
    cell = (high + lines if grid else max(high, lines)) + _MARGIN
    step = wide + _MARGIN if grid else beside + wide + 2 * _MARGIN
    start = beside + 2 * _MARGIN if grid else _MARGIN
    head = _MARGIN + (3 if grid else 2) * _LINE
    rows, columns = (1 + max(at[axis] for at in pictures) for axis in (0, 1))
    width = max(start + columns * step, _width([title], _TITLE) + 2 * _MARGIN)
    canvas = Image.new("RGB", (width, head + rows * cell), (PAPER,) * 3)
    draw = ImageDraw.Draw(canvas)
    _text(draw, (_MARGIN, _MARGIN), title, size=_TITLE)
    for n, text in enumerate(layout.columns):
        _text(draw, (start + n * step + wide // 2, head - _LINE // 2 - 3), text, anchor="mm")
    for n, text in enumerate(layout.rows):
        _text(draw, (start - _MARGIN, head + n * cell + high // 2), text, anchor="rm")
    for (row, column), told in says.items():
        colour = _BEST if layout.trials[row, column] is best else (0, 0, 0)
        at = start + column * step, head + row * cell + (high + 2 if grid else 0)
        _text(draw, at, "\n".join(told), colour=colour)
    out = np.repeat(np.asarray(canvas)[None], frames, axis=0)
    for (row, column), picture in pictures.items():
        top, left = head + row * cell, start + column * step + (0 if grid else beside + _MARGIN)
        out[:, top : top + high, left : left + wide] = picture
    return out


def _says(row: TrialRow, swept: Swept, layout: Layout, *, is_best: bool) -> list[str]:
    """Of a trial: its metric, and where no headings say it, its values."""
    value = label(row.metric) if measured([row]) else "no value"
    state = "" if row.state == "finished" else f", {row.state}"
    metric = f"{'best: ' * is_best}{value} (trial {row.number}{state})"
    if layout.columns:
        return [metric]
    values = [f"{swept.short(p)} {label(row.values[p])}" for p in swept.kinds if p in row.values]
    return [*values, metric]


def _width(lines: Sequence[str], size: int = _TEXT) -> int:
    font = ImageFont.load_default(size)
    return round(max((font.getlength(line) for line in lines), default=0))


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    *,
    colour: tuple[int, int, int] = (0, 0, 0),
    anchor: str = "la",
    size: int = _TEXT,
) -> None:
    draw.text(at, text, fill=colour, font=ImageFont.load_default(size), anchor=anchor)
