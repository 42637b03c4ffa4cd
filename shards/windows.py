"""Which frames of a source its clips are made of, where that is not simply all of them.

A source's frames may count in runs only (`Source.spans`), or as one part of them (`WithinSplit`):
of the train part the first, of the test part the last. Clips lie within a run. They follow one
another from its beginning, or are `Recipe.clips` of all the possible ones, which may overlap: those
whose first frame's number, with the source's name, has the lowest sha256.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from shards.recipe import Recipe, WithinSplit
from shards.sources import Source
from shards.video import Frame, VideoRejectedError


def first_frames(source: Source, recipe: Recipe, count: Callable[[], int]) -> list[int] | None:
    """The first frame of every clip, ascending; None where all frames count, as they come.

    count: says how many frames the source has; called only if that decides. Raises
    VideoRejectedError `too_short` when there is no room for a clip.
    """
    split = recipe.split if isinstance(recipe.split, WithinSplit) else None
    if not (split or recipe.clips or source.spans):
        return None
    runs, size = list(source.spans), recipe.frames
    if split or recipe.clips:
        total = count()
        runs = _within(runs or [(0, total)], *_part(total, split))
    if recipe.clips:
        starts = [n for start, stop in runs for n in range(start, stop - size + 1)]
        starts = sorted(starts, key=lambda n: _drawn(source.name, n))[: recipe.clips]
    else:
        starts = [n for start, stop in runs for n in range(start, stop - size + 1, size)]
    if not starts:
        longest = max((stop - start for start, stop in runs), default=0)
        part = f" in the {split.part} part" if split else ""
        raise VideoRejectedError("too_short", f"{longest} frames{part}, a clip takes {size}")
    return sorted(starts)


def clips_in(
    frames: Iterable[Frame], recipe: Recipe, starts: Iterable[int] | None
) -> Iterator[list[Frame]]:
    """The clips that begin at `starts`, even where the video jumps within one.

    None: those that follow one another, each within a segment; and all there is of a video that is
    shorter than a clip, and not than `recipe.least_frames`.
    """
    if starts is None:
        yield from _consecutive(frames, recipe)
        return
    wanted, last = frozenset(starts), deque[Frame](maxlen=recipe.frames)
    for frame in frames:
        last.append(frame)
        if len(last) == recipe.frames and last[0].index in wanted:
            yield list(last)


def _consecutive(frames: Iterable[Frame], recipe: Recipe) -> Iterator[list[Frame]]:
    clip: list[Frame] = []
    count = 0
    for frame in frames:
        count += 1
        if clip and frame.segment != clip[0].segment:
            clip = []
        clip.append(frame)
        if len(clip) == recipe.frames:
            yield clip
            clip = []
    if recipe.least_frames <= len(clip) == count:
        yield clip


def _part(total: int, split: WithinSplit | None) -> tuple[int, int]:
    """(first, behind the last) of the frames of the split's part."""
    if split is None:
        return 0, total
    behind_train = round(total * (1 - split.test_share))
    return (0, behind_train) if split.part == "train" else (behind_train, total)


def _within(runs: list[tuple[int, int]], first: int, behind: int) -> list[tuple[int, int]]:
    cut = [(max(start, first), min(stop, behind)) for start, stop in runs]
    return [(start, stop) for start, stop in cut if start < stop]


def _drawn(name: str, start: int) -> bytes:
    return hashlib.sha256(f"clip {name} {start}".encode()).digest()
