"""Cuts one video into clips: decode, group, hold still, encode.

A clip is the next `frames` slots of the 25 fps grid within one segment; what is left over at the
end of a segment is too short and left out. Nothing that is wrong with a video leaves this file as
an exception: it becomes a reason, counted and reported.
"""

from __future__ import annotations

import errno
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from shards.chairs import read_views, sequences
from shards.clip import encode_clip, grey, opened, pixels_of
from shards.direction import direction
from shards.duplicates import perceptual_hash
from shards.fate import VideoReport
from shards.recipe import Recipe
from shards.scene import judged
from shards.sources import Source, open_source
from shards.stabilize import ClipRejectedError
from shards.storage import UnreachableError
from shards.strips import Archive, clips_of, read_strip
from shards.tgif import has_end, picked
from shards.video import Frame, Image, Video, VideoRejectedError
from shards.watch import SourceTimedOutError
from shards.windows import clips_in, first_frames

Sample = tuple[str, bytes]
"""A member's name and data."""
ABOUT = ("attributes", "caption")
"""What a clip's provenance may say of what it shows; its source's report says it, too."""
COMMIT_BYTES = 1 << 30
"""Of an archive's clips that are committed together: what a restart may have to cut again."""


class Cutter:
    """One source on its way: `samples()` gives the kept clips' members.

    Then `report` is whole, and `hashes` has (key, perceptual hash) of each kept clip.
    """

    def __init__(
        self, source: Source, recipe: Recipe, moved: Callable[[], None] = lambda: None
    ) -> None:
        """moved: called after each part of a download and each frame; it may end the work by
        raising SourceTimedOutError. That, a full disk, and a store that is gone leave `samples`."""
        self.source = source
        self.recipe = recipe
        self._moved = moved
        self.hashes: list[tuple[str, str]] = []
        self.report = VideoReport(source=source.name, id=source.id)
        self.entries = 0

    def resume(self, report: VideoReport, entries: int) -> None:
        """Goes on behind so many `entries` of an archive; `report` is what was said of them."""
        self.report, self.entries = report, entries

    def leave(self, reason: str, detail: str) -> None:
        """Ends the source here; what was kept of it stays."""
        if self.report.clips:
            self.report.note = detail
        else:
            self.report.reason, self.report.detail = reason, detail

    def samples(self) -> Iterator[Sample | None]:
        """(member name, data), sorted by name; None where what came before may be committed, with
        `report` and `entries` as they are then. Never raises for what is wrong with the source."""
        report = self.report
        try:
            yield from self._read()
        except (SourceTimedOutError, UnreachableError):
            raise
        except VideoRejectedError as error:
            report.reason, report.detail = error.reason, str(error)
        except (FileNotFoundError, NotADirectoryError) as error:
            report.reason, report.detail = "missing", str(error)
        except OSError as error:
            if error.errno == errno.ENOSPC or self.entries:
                raise  # this machine's trouble, or an archive's that a restart goes on with
            report.reason, report.detail = "unreadable", _said(error)
        except Exception as error:  # one odd file among millions must not stop the job
            report.reason, report.detail = "failed", _said(error)
        if report.clips and report.reason:
            report.note, report.reason, report.detail = report.detail, None, None
        elif not report.clips and not report.reason:
            report.reason = "no_clip_kept"

    def _read(self) -> Iterator[Sample | None]:
        if self.source.bytes == 0:
            raise VideoRejectedError("empty", "zero bytes")
        reads = {
            "video": self._video,
            "strip": self._strip,
            "archive": self._archive,
            "gif": self._gif,
            "chair": self._chair,
        }
        yield from reads[self.recipe.reads]()

    def _video(self) -> Iterator[Sample]:
        with open_source(self.source, self._moved) as (file, etag):
            self.report.etag = etag
            starts = first_frames(self.source, self.recipe, lambda: self._counted(file))
            with self._reported(file) as video:
                for clip in clips_in(self._frames(video.frames()), self.recipe, starts):
                    yield from self._sample(clip)

    def _gif(self) -> Iterator[Sample]:
        with open_source(self.source, self._moved) as (file, etag):
            self.report.etag = etag
            whole = has_end(file)
            with self._reported(file) as video:
                seen: Iterator[Frame] = self._frames(video.pictures())
                if not whole:
                    seen = (frame for frame, _ in itertools.pairwise(seen))
                clip = picked(seen, self.recipe.frames, self.source.name)
                video.damage = video.damage or (None if whole else "it has no end")
                if len(clip) == self.recipe.frames:
                    yield from self._sample(clip)

    @contextmanager
    def _reported(self, file: BinaryIO | str) -> Iterator[Video]:
        """The video, open; the report gets what there is to say of it."""
        report, recipe = self.report, self.recipe
        with opened(file, self.recipe) as video:
            report.codec, report.source_fps = video.codec, video.source_fps
            report.width, report.height = video.source_size
            yield video
            report.note = video.damage and f"stopped early: {video.damage}"
        if not report.frames:
            raise VideoRejectedError("undecodable", video.damage or "no pictures in it")
        if report.frames < recipe.least_frames:
            rate = "" if recipe.reads == "gif" else f" at {recipe.fps} fps"
            length = f"{report.frames} frames{rate}, a clip takes {recipe.least_frames}"
            raise VideoRejectedError("too_short", length)

    def _counted(self, file: BinaryIO | str) -> int:
        """How many slots of the grid a video has."""
        before, count = time.process_time(), 0
        with opened(file, self.recipe) as video:
            for _ in video.frames():
                count += 1
                self._moved()
            if not count:
                raise VideoRejectedError("undecodable", video.damage or "no pictures in it")
        self._spent("decode", before)
        return count

    def _chair(self) -> Iterator[Sample]:
        report, recipe = self.report, self.recipe
        before = time.process_time()
        views, report.etag = read_views(self.source, self._moved)
        self._spent("decode", before)
        report.frames = len(views)
        report.seconds = round(report.frames / recipe.fps, 3)
        for number, clip, facts, azimuths in sequences(views, self.source.name, recipe):
            note = {"source": self.source.name, "etag": report.etag, "labels": self.source.labels}
            facts = dict(self.source.attributes) | facts
            yield from self._members(number, clip, note | {"attributes": facts, "views": azimuths})

    def _strip(self) -> Iterator[Sample]:
        with open_source(self.source, self._moved) as (file, etag):
            self.report.etag = etag
            data = Path(file).read_bytes() if isinstance(file, str) else file.read()
        yield from self._strip_clips(data, {"source": self.source.name, "etag": etag})

    def _archive(self) -> Iterator[Sample | None]:
        """A key's number is its entry's place in the archive: no entry has more than one clip."""
        archive, report = Archive(self.source, self._moved), self.report
        size = 0
        for number, (path, data) in enumerate(archive.entries()):
            if number < self.entries:
                continue
            try:
                note = {"source": self.source.name, "entry": path}
                for sample in self._strip_clips(data, note, number):
                    size += len(sample[1])
                    yield sample
            except VideoRejectedError as error:
                report.rejected.append((number, error.reason, f"{path}: {error}"))
            self.entries = number + 1
            if size >= COMMIT_BYTES:
                size = 0
                yield None
        report.etag = archive.etag
        report.rejected += [(-1, "missing", path) for path in archive.missing]

    def _strip_clips(
        self, data: bytes, note: dict[str, Any], entry: int | None = None
    ) -> Iterator[Sample]:
        report, recipe = self.report, self.recipe
        before = time.process_time()
        strip = read_strip(data)
        self._spent("decode", before)
        report.frames += len(strip)
        report.seconds = round(report.frames / recipe.fps, 3)
        starts = first_frames(self.source, recipe, lambda: len(strip))
        for start, clip in clips_of(strip, recipe, starts):
            here = {"start_frame": start, "start_s": round(start / recipe.fps, 3)}
            labels = {"labels": self.source.labels, "frames": min(len(strip), recipe.frames)}
            yield from self._members(start if entry is None else entry, clip, note | here | labels)
            if entry is not None:
                return

    def _frames(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The same, counted."""
        while True:
            before = time.process_time()
            frame = next(frames, None)
            self._spent("decode", before)
            if frame is None:
                return
            self._moved()
            self.report.frames += 1
            self.report.seconds = round(self.report.frames / self.recipe.fps, 3)
            yield frame

    def _sample(self, clip: list[Frame]) -> Iterator[Sample]:
        """The clip's members; one that is too short repeats its last frame, as VGAN's loader."""
        recipe, report = self.recipe, self.report
        start = clip[0].index
        which: dict[str, Any] = {"frames": len(clip)} if len(clip) < recipe.frames else {}
        if recipe.reads == "gif":
            which["picked"] = [frame.index for frame in clip]
        clip = clip + clip[-1:] * (recipe.frames - len(clip))
        pictures = [frame.picture for frame in clip]
        before = time.process_time()
        try:
            if clip[-1].segment != clip[0].segment:
                raise ClipRejectedError("gap", 0, "the video jumps within it")
            if any(picture.corrupt for picture in pictures):
                raise ClipRejectedError("damaged", 0, "the decoder repaired a picture")
            scene = judged(recipe.scene, pictures)
            before = self._spent("judge", before)
            pixels, held = pixels_of(pictures, recipe)
            about = self._described(pixels)
        except ClipRejectedError as error:
            report.rejected.append((start, error.reason, str(error)))
            return
        finally:
            self._spent("stabilize", before)
        note = self._provenance(clip[0]) | {"stabilizer": held} | scene | which | about
        yield from self._members(start, pixels, note)

    def _described(self, clip: Image) -> dict[str, Any]:
        """The clip's attributes and caption, as far as it has any. Raises ClipRejectedError."""
        source, about = self.source, dict[str, Any]()
        attributes, caption = dict(source.attributes), source.caption
        if source.directed:
            attributes["direction"] = direction(clip)
            caption = f"{caption} {attributes['direction']}"
        if attributes:
            about["attributes"] = attributes
        if caption is not None:
            about["caption"] = caption
        return about

    def _members(self, number: int, clip: Image, note: dict[str, Any]) -> list[tuple[str, bytes]]:
        """A kept clip's."""
        before = time.process_time()
        if self.recipe.channels == 1:
            clip = grey(clip)
        key = f"{self.source.id}_{number:08d}"
        members = [
            (f"{key}.{self.recipe.encoding}", encode_clip(clip, self.recipe)),
            (f"{key}.json", canonical_json(note)),
        ]
        self.hashes.append((key, perceptual_hash(clip)))
        self._spent("encode", before)
        self.report.clips += 1
        about = {name: note[name] for name in ABOUT if name in note}
        if about:
            self.report.described.append((number, about))
        return sorted(members)

    def _provenance(self, first: Frame) -> dict[str, Any]:
        return {
            "source": self.source.name,
            "etag": self.report.etag,
            "start_frame": first.index,
            "start_s": round(first.time_s, 3),
            "source_fps": self.report.source_fps,
            "labels": self.source.labels,
        }

    def _spent(self, stage: str, before: float) -> float:
        now = time.process_time()
        self.report.cpu_s[stage] = self.report.cpu_s.get(stage, 0.0) + now - before
        return now


def canonical_json(value: Any) -> bytes:
    """Equal values give equal bytes: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
