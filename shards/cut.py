"""Cuts one video into clips: decode, group, hold still, encode.

A clip is the next `frames` slots of the 25 fps grid within one segment; what is left over at the
end of a segment is too short and left out. Nothing that is wrong with a video leaves this file as
an exception: it becomes a reason, counted and reported.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import simplejpeg

from shards.duplicates import perceptual_hash
from shards.recipe import Recipe
from shards.scene import DECODED_PX, classifier
from shards.sources import Source, open_source
from shards.stabilize import (
    SUPERSAMPLE,
    ClipRejectedError,
    Stabilized,
    registration_px,
    stabilize,
)
from shards.storage import UnreachableError
from shards.strips import Archive, clips_of, read_strip
from shards.video import Frame, Image, Picture, Video, VideoRejectedError
from shards.watch import SourceTimedOutError

Sample = tuple[str, bytes]
"""A member's name and data."""
COMMIT_BYTES = 1 << 30
"""Of an archive's clips that are committed together: what a restart may have to cut again."""


@dataclass(kw_only=True, slots=True)
class VideoReport:
    """What became of one source. All of it is a function of the content but `cpu_s`.

    reason: why nothing of it was kept, or None. note: why only a part was looked at, or None.
    frames: slots of the grid. rejected: (start frame, reason, detail) per clip.
    cpu_s: seconds of processor time by stage.
    """

    source: str
    id: str
    etag: str | None = None
    codec: str | None = None
    width: int | None = None
    height: int | None = None
    source_fps: float | None = None
    frames: int = 0
    seconds: float = 0.0
    clips: int = 0
    rejected: list[tuple[int, str, str]] = field(default_factory=list)
    reason: str | None = None
    detail: str | None = None
    note: str | None = None
    cpu_s: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "stabilize": 0.0, "encode": 0.0}
    )


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
        reads = {"video": self._video, "strip": self._strip, "archive": self._archive}
        yield from reads[self.recipe.reads]()

    def _video(self) -> Iterator[tuple[str, bytes]]:
        report, recipe = self.report, self.recipe
        with open_source(self.source, self._moved) as (file, etag):
            report.etag = etag
            with Video(
                file,
                fps=recipe.fps,
                canvas_px=recipe.size_px * SUPERSAMPLE,
                gray_px=registration_px(recipe.stabilizer),
                scene_px=DECODED_PX,
                scene_every=recipe.frames if recipe.scene else 0,
            ) as video:
                report.codec, report.source_fps = video.codec, video.source_fps
                report.width, report.height = video.source_size
                yield from self._clips(video)
                report.note = video.damage and f"stopped early: {video.damage}"
        if not report.frames:
            raise VideoRejectedError("undecodable", video.damage or "no pictures in it")
        if report.frames < recipe.least_frames:
            takes = f"a clip takes {recipe.least_frames}"
            length = f"{report.frames} frames at {recipe.fps} fps, {takes}"
            raise VideoRejectedError("too_short", length)

    def _strip(self) -> Iterator[tuple[str, bytes]]:
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
    ) -> Iterator[tuple[str, bytes]]:
        report, recipe = self.report, self.recipe
        before = time.process_time()
        strip = read_strip(data)
        self._spent("decode", before)
        report.frames += len(strip)
        report.seconds = round(report.frames / recipe.fps, 3)
        for start, clip in clips_of(strip, recipe):
            here = {"start_frame": start, "start_s": round(start / recipe.fps, 3)}
            labels = {"labels": self.source.labels, "frames": min(len(strip), recipe.frames)}
            yield from self._members(start if entry is None else entry, clip, note | here | labels)
            if entry is not None:
                return

    def _clips(self, video: Video) -> Iterator[tuple[str, bytes]]:
        clip: list[Frame] = []
        frames = iter(video.frames())
        while True:
            before = time.process_time()
            frame = next(frames, None)
            self._spent("decode", before)
            if frame is None:
                if self.recipe.least_frames <= len(clip) == self.report.frames:
                    yield from self._sample(clip)  # all there is of a short video
                return
            self._moved()
            self.report.frames += 1
            self.report.seconds = round(self.report.frames / self.recipe.fps, 3)
            if clip and frame.segment != clip[0].segment:
                clip = []
            clip.append(frame)
            if len(clip) == self.recipe.frames:
                yield from self._sample(clip)
                clip = []

    def _sample(self, clip: list[Frame]) -> Iterator[tuple[str, bytes]]:
        """The clip's members; one that is too short repeats its last frame, as VGAN's loader."""
        recipe, report = self.recipe, self.report
        start = clip[0].index
        short = {"frames": len(clip)} if len(clip) < recipe.frames else {}
        clip = clip + clip[-1:] * (recipe.frames - len(clip))
        before = time.process_time()
        try:
            if any(frame.picture.corrupt for frame in clip):
                raise ClipRejectedError("damaged", 0, "the decoder repaired a picture")
            scene = self._judged([frame.picture for frame in clip])
            before = self._spent("judge", before)
            steady = stabilize(
                [frame.picture for frame in clip],
                backend=recipe.stabilizer,
                size_px=recipe.size_px,
            )
        except ClipRejectedError as error:
            report.rejected.append((start, error.reason, str(error)))
            return
        finally:
            self._spent("stabilize", before)
        note = self._provenance(clip[0], steady) | scene | short
        yield from self._members(start, steady.clip, note)

    def _judged(self, pictures: list[Picture]) -> dict[str, Any]:
        """The clip's scores, for its provenance. Raises ClipRejectedError `other_scene`."""
        wanted = self.recipe.scene
        if wanted is None:
            return {}
        model = classifier(wanted)
        scores = model.scores([p.scene for p in pictures if p.scene is not None])
        score = model.of_scene(scores)
        top = [(model.labels[n], round(float(scores[n]), 4)) for n in (-scores).argsort()[:3]]
        if score < wanted.least:
            said = f"{wanted.scene} {score:.3f}, rather {top[0][0]} {top[0][1]:.3f}"
            raise ClipRejectedError("other_scene", 0, said)
        return {"scene": {"name": wanted.scene, "score": round(score, 4), "top": top}}

    def _members(self, number: int, clip: Image, note: dict[str, Any]) -> list[tuple[str, bytes]]:
        """A kept clip's."""
        before = time.process_time()
        key = f"{self.source.id}_{number:08d}"
        members = [
            (f"{key}.{self.recipe.encoding}", encode_clip(clip, self.recipe)),
            (f"{key}.json", canonical_json(note)),
        ]
        self.hashes.append((key, perceptual_hash(clip)))
        self._spent("encode", before)
        self.report.clips += 1
        return sorted(members)

    def _provenance(self, first: Frame, steady: Stabilized) -> dict[str, Any]:
        held = {
            "backend": self.recipe.stabilizer,
            "opencv": cv2.__version__,
            **dataclasses.asdict(steady.quality),
        }
        return {
            "source": self.source.name,
            "etag": self.report.etag,
            "start_frame": first.index,
            "start_s": round(first.time_s, 3),
            "source_fps": self.report.source_fps,
            "labels": self.source.labels,
            "stabilizer": None if self.recipe.stabilizer == "none" else held,
        }

    def _spent(self, stage: str, before: float) -> float:
        now = time.process_time()
        self.report.cpu_s[stage] = self.report.cpu_s.get(stage, 0.0) + now - before
        return now


def encode_clip(clip: Image, recipe: Recipe) -> bytes:
    """(T, S, S, 3) uint8 as the recipe's member: a vertical JPEG strip, or the raw bytes."""
    if recipe.encoding == "u8":
        return clip.tobytes()
    frames, height, width, channels = clip.shape
    strip = clip.reshape(frames * height, width, channels)
    jpeg: bytes = simplejpeg.encode_jpeg(
        strip, quality=recipe.jpeg_quality, colorspace="RGB", colorsubsampling="444", fastdct=False
    )
    return jpeg


def canonical_json(value: Any) -> bytes:
    """Equal values give equal bytes: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
