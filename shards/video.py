"""Decodes one video, of any rate, size, rotation or depth, to pictures on a regular time grid.

The decoder runs on the caller's thread (pools of decoders with threads of their own stall) and one
picture at a time, so memory does not grow with the video's length. Time is what the presentation
timestamps say: the picture shown in slot k of the grid is the last one whose timestamp, rounded to
the grid, is not after k, which is the rule of FFmpeg's `fps` filter. Declared frame rates and
frame counts are never trusted. A jump of more than a second, or a change of size, starts a new
*segment*; no clip may span two.

Each picture comes in two sizes: `gray`, the luma for registration, and `canvas`, the colours with
the short side at the size the output is made from, or as `Recipe.fit` has it. Both are upright
(rotation metadata applied) and have square pixels (the sample aspect ratio applied).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Generic, TypeVar

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from shards.recipe import Fit

av.logging.set_level(None)

MAX_GAP_S = 1
_EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT

Image = npt.NDArray[np.uint8]
P = TypeVar("P")


class VideoRejectedError(Exception):
    """A source gives no pictures at all. `reason` is one word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """One decoded frame: `gray` (H, W) and `canvas` (H', W', 3), uint8, full range.

    scene: like canvas, larger, for the first and then one in `scene_every` slots of the grid.
    """

    gray: Image
    canvas: Image
    corrupt: bool
    scene: Image | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frame:
    """One slot of the grid. A repeated slot holds the very same `picture` object.

    index: counts the slots of the whole video from 0, across segments. time_s: of the slot.
    """

    index: int
    time_s: float
    segment: int
    picture: Picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamped(Generic[P]):
    """Something shown from `time` (seconds) for `duration`; `breaks` when it cannot follow on."""

    item: P
    time: Fraction
    duration: Fraction
    breaks: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown(Generic[P]):
    """`item` fills `slots` slots from `time` on; `starts` when it is the first of a segment."""

    item: P
    time: Fraction
    slots: int
    starts: bool


def on_grid(pictures: Iterable[Stamped[P]], fps: int) -> Iterator[Shown[P]]:
    """Says how many slots of a grid of `fps` per second each picture fills; may be none."""
    held: Stamped[P] | None = None
    origin = Fraction(0)
    starts = True

    def slot(time: Fraction) -> int:
        return (2 * (time - origin) * fps + 1) // 2  # nearest, halves up

    def shown(upto: Fraction, item: Stamped[P]) -> Shown[P]:
        first = slot(item.time)
        time = origin + Fraction(first, fps)
        return Shown(item=item.item, time=time, slots=slot(upto) - first, starts=starts)

    for new in pictures:
        if held is None:
            held, origin = new, new.time
            continue
        if new.breaks or abs(new.time - held.time) > MAX_GAP_S:
            yield shown(held.time + held.duration, held)
            held, origin, starts = new, new.time, True
            continue
        until = max(new.time, held.time)
        done = shown(until, held)
        yield done
        starts = starts and done.slots == 0
        held = Stamped(item=new.item, time=until, duration=new.duration)
    if held is not None:
        yield shown(held.time + held.duration, held)


class Video:
    """One open video; a context manager. `frames()` or `pictures()` may be called once.

    file: the bytes (a seekable file) or a local path. fps: of the grid. canvas_px: the canvas's
    short side; with `fit` "squash" both sides, with "pad" the long one. gray_px: the longest side
    of `gray`, never enlarged; None keeps the source's size. scene_px, scene_every: the short side
    of `scene`, and how often it is made; 0 for never.
    After `frames()` has ended, `damage` says why it ended early, or is None.

    Raises VideoRejectedError: `not_video` when there is no video stream in it.
    """

    def __init__(
        self,
        file: BinaryIO | str,
        *,
        fps: int,
        canvas_px: int,
        gray_px: int | None,
        scene_px: int = 0,
        scene_every: int = 0,
        fit: Fit = "crop",
    ) -> None:
        self.fps = fps
        self.canvas_px = canvas_px
        self.fit = fit
        self.gray_px = gray_px
        self.scene_px = scene_px
        self.scene_every = scene_every
        self.damage: str | None = None
        self.decoded = 0
        try:
            self._container = av.open(file, "r")
        except (av.FFmpegError, ValueError) as error:
            raise VideoRejectedError("not_video", _said(error)) from None
        if not self._container.streams.video:
            self._container.close()
            raise VideoRejectedError("not_video", "no video stream")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise VideoRejectedError("not_video", "no decoder for its codec")
        self._stream.thread_type = "NONE"
        # One scaler each, kept: a scaler made per frame leaks megabytes in current FFmpeg.
        self._gray = VideoReformatter()
        self._color = VideoReformatter()
        self._large = VideoReformatter()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def codec(self) -> str:
        """The decoder's name."""
        return str(self._stream.codec_context.name)

    @property
    def source_fps(self) -> float | None:
        """The average rate the container declares; None when it does not."""
        rate = self._stream.average_rate
        return round(float(rate), 3) if rate else None

    @property
    def source_size(self) -> tuple[int, int]:
        """(width, height) as coded."""
        return int(self._stream.width), int(self._stream.height)

    def frames(self) -> Iterator[Frame]:
        """Every slot of the grid, in order."""
        index = 0
        segment = -1
        for shown in on_grid(self._decode(), self.fps):
            segment += shown.starts and shown.slots > 0
            if shown.slots <= 0:
                continue
            judged = self.scene_every > 0 and -index % self.scene_every < shown.slots
            picture = self._picture(shown.item, judged)
            for k in range(shown.slots):
                time = float(shown.time + Fraction(k, self.fps))
                yield Frame(index=index, time_s=time, segment=segment, picture=picture)
                index += 1

    def pictures(self) -> Iterator[Frame]:
        """Every picture in the file once, whenever and however long it is shown.

        As after `frames()`, which this is instead of, `damage` tells why they ended early.
        """
        for index, shown in enumerate(self._decode()):
            picture = self._picture(shown.item, False)
            yield Frame(index=index, time_s=float(shown.time), segment=0, picture=picture)

    def _decode(self) -> Iterator[Stamped[Any]]:
        clock = _Clock(self._stream, self.fps)
        size = None
        try:
            for frame in self._container.decode(self._stream):
                self.decoded += 1
                time, duration = clock.stamp(frame)
                breaks = size not in (None, (frame.width, frame.height))
                size = (frame.width, frame.height)
                yield Stamped(item=frame, time=time, duration=duration, breaks=breaks)
        except (av.FFmpegError, EOFError) as error:
            self.damage = _said(error)

    def _picture(self, frame: Any, judged: bool) -> Picture:
        width, height = _display_size(frame, self._stream)
        gray_scale = min(1.0, self.gray_px / max(width, height)) if self.gray_px else 1.0
        gray = _scaled(self._gray, frame, "gray", width * gray_scale, height * gray_scale)
        canvas = _scaled(self._color, frame, "rgb24", *self._canvas_size(width, height))
        scene = None
        if judged:
            scale = self.scene_px / min(width, height)
            scene = _scaled(self._large, frame, "rgb24", width * scale, height * scale)
        turns = round(frame.rotation / 90) % 4
        if turns:
            gray = np.ascontiguousarray(np.rot90(gray, turns))
            canvas = np.ascontiguousarray(np.rot90(canvas, turns))
            scene = None if scene is None else np.ascontiguousarray(np.rot90(scene, turns))
        return Picture(gray=gray, canvas=canvas, corrupt=frame.is_corrupt, scene=scene)

    def _canvas_size(self, width: float, height: float) -> tuple[float, float]:
        if self.fit == "squash":
            return self.canvas_px, self.canvas_px
        scale = self.canvas_px / (min if self.fit == "crop" else max)(width, height)
        return width * scale, height * scale


class _Clock:
    """Timestamps in presentation order, from a decoder that hands out frames in that order.

    Some containers (AVI above all) carry presentation times that go back and forth; then decoding
    times are right. As FFmpeg does: believe whichever of the two has been out of order less often.
    """

    def __init__(self, stream: Any, fps: int) -> None:
        self._base = Fraction(stream.time_base or Fraction(1, fps))
        rate = stream.average_rate
        self._usual = 1 / Fraction(rate) if rate else Fraction(1, fps)
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._faults_pts = 0
        self._faults_dts = 0
        self._next = Fraction(0)

    def stamp(self, frame: Any) -> tuple[Fraction, Fraction]:
        """(time, duration) in seconds."""
        pts, dts = frame.pts, frame.dts
        if dts is not None:
            self._faults_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._faults_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        believe_pts = pts is not None and (dts is None or self._faults_pts <= self._faults_dts)
        ticks = pts if believe_pts else dts
        time = self._next if ticks is None else ticks * self._base
        duration = frame.duration * self._base if frame.duration else self._usual
        self._next = time + duration
        return time, duration


def _display_size(frame: Any, stream: Any) -> tuple[float, int]:
    """(width, height) with square pixels; absurd aspect ratios are taken for mistakes."""
    ratio = float(stream.sample_aspect_ratio or 1)
    if not 0.25 <= ratio <= 4:
        ratio = 1.0
    return frame.width * ratio, frame.height


def _scaled(scaler: Any, frame: Any, pixels: str, width: float, height: float) -> Image:
    size = (max(1, round(width)), max(1, round(height)))
    shrinks = size[0] <= frame.width and size[1] <= frame.height
    how = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    scaled = scaler.reformat(
        frame, *size, format=pixels, interpolation=int(how | _EXACT), threads=1
    )
    array: Image = scaled.to_ndarray()
    return array


def _said(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
