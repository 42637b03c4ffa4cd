"""Clips that others have cut already: pictures with the frames of a video side by side.

A strip is square frames from top to bottom or from left to right, whichever is the longer side:
the layout of the original VGAN data (JPEG, 16 to 34 frames of 128x128) and of MoCoGAN's (also PNG
with alpha, whatever the name says). An archive is a tar of strips, compressed or not, read once
from front to back and never unpacked; a list beside it (`golf.txt` for `golf.tar.bz2`) says which
of its entries count.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, cast

import cv2
import numpy as np
from PIL import Image as Pil

from shards.recipe import Recipe
from shards.sources import Source, parts_of, read_beside
from shards.video import Image, VideoRejectedError


def read_strip(data: bytes) -> Image:
    """(T, S, S, 3) uint8. Raises VideoRejectedError: `not_picture`, or `not_strip`."""
    try:
        with Pil.open(io.BytesIO(data)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
        raise VideoRejectedError("not_picture", str(error)) from None
    height, width = pixels.shape[:2]
    side = min(height, width)
    if max(height, width) % side:
        raise VideoRejectedError("not_strip", f"{width}x{height} is no row of squares")
    if height >= width:
        return pixels.reshape(-1, side, side, 3)
    return np.ascontiguousarray(pixels.reshape(side, -1, side, 3).swapaxes(0, 1))


def clips_of(
    strip: Image, recipe: Recipe, starts: Iterable[int] | None = None
) -> Iterator[tuple[int, Image]]:
    """(first frame, (frames, size_px, size_px, 3)): the clips of the strip that begin at `starts`.

    None: those that follow one another; what is left over at the end is left out. A strip that is
    shorter than a clip but has `recipe.least_frames` repeats its last frame, as the VGAN loader
    does; a still shorter one raises VideoRejectedError `too_short`. Halving is the 2x2 box mean.
    """
    count, size = len(strip), recipe.size_px
    if starts is None and count < recipe.least_frames:
        raise VideoRejectedError("too_short", f"{count} frames, want {recipe.least_frames}")
    if count < recipe.frames:
        last = np.repeat(strip[-1:], recipe.frames - count, axis=0)
        strip, count = np.concatenate([strip, last]), recipe.frames
    for start in range(0, count - recipe.frames + 1, recipe.frames) if starts is None else starts:
        clip = strip[start : start + recipe.frames]
        if clip.shape[1] != size:
            how = cv2.INTER_AREA if clip.shape[1] > size else cv2.INTER_CUBIC
            clip = np.stack([cv2.resize(tile, (size, size), interpolation=how) for tile in clip])
        yield start, clip


class Archive:
    """A tar of strips, in passing.

    After `entries()` has ended, `missing` has the listed entries that are not in it, sorted, and
    `etag` the sha256 of the archive.
    """

    def __init__(self, source: Source, moved: Callable[[], None]) -> None:
        self._moved = moved
        self._file = _Parts(parts_of(source, moved))
        self._listed = _listed(source)
        self.missing: list[str] = []

    @property
    def etag(self) -> str:
        """sha256 in hex of what has been read."""
        return self._file.digest.hexdigest()

    def entries(self) -> Iterator[tuple[str, bytes]]:
        """(path, content) of every file that counts. Raises VideoRejectedError `not_archive`."""
        seen = set()
        try:
            with tarfile.open(fileobj=cast(IO[bytes], self._file), mode="r|*") as tar:
                for entry in tar:
                    name = entry.name.removeprefix("./")
                    if entry.isfile() and (self._listed is None or name in self._listed):
                        file = tar.extractfile(entry)
                        assert file is not None
                        seen.add(name)
                        self._moved()
                        yield name, file.read()
        except (tarfile.TarError, EOFError) as error:
            raise VideoRejectedError("not_archive", str(error)) from None
        while self._file.read(1 << 20):
            pass  # to the end, for the hash
        self.missing = sorted((self._listed or set()) - seen)


def _listed(source: Source) -> set[str] | None:
    """The first word of each line of the list beside an archive; None without one."""
    name = PurePosixPath(source.location).name
    stem = name.partition(".tar")[0]
    text = read_beside(source, f"{stem}.txt")
    if text is None:
        return None
    lines = (line.split() for line in text.decode().splitlines())
    return {line[0].removeprefix("./") for line in lines if line}


class _Parts:
    """A file that can only be read on, from an iterator of byte strings."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._part = b""
        self._at = 0
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        given = []
        while size:
            if self._at == len(self._part):
                self._part, self._at = next(self._parts, b""), 0
                if not self._part:
                    break
                self.digest.update(self._part)
            piece = self._part[self._at : self._at + size]  # tar reads 10 kB of 16 MiB at a time
            self._at += len(piece)
            size -= len(piece)
            given.append(piece)
        return b"".join(given)
