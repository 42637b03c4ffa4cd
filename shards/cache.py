"""A folder on a node's disk that keeps whole shards, for every rank of the node.

A read that the folder cannot serve goes to the origin at once, and the shard is copied in the
background; nobody waits for a copy. A file is named by the sha256 of its shard, so it can never be
another dataset's or a stale one. It appears by a rename, complete and verified. While it is being
written it is `<sha256>.part`, under the kernel's file lock, which ends with its process however
that ends: so ranks do not copy the same shard twice, and a crash leaves at most a partial file that
the next start removes. No shared memory, and no lock that outlives its holder.

When the folder is full, the least recently used shards go (their modification time says when they
were last opened); who still reads one keeps reading it. A full disk, or a folder that cannot be
written, makes the reader go on without copying, and say so once.

With `decode`, the file holds the clips as raw pixels, decoded once (`<sha256>.u8`): n clips, then n
little-endian crc32c, which are 0 and the clip all zeros where it could not be read.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from shards.catalog import Catalog, ShardIndex
from shards.dataset import Dataset
from shards.decode import decode_into
from shards.fetch import LARGEST, OpenFile, OpenFiles, Pixels, Range, RawMembers, Source
from shards.manifest import Shard
from shards.quarantine import BadSampleError

_log = logging.getLogger(__name__)
_OURS = re.compile(r"[0-9a-f]{64}\.(tar|u8|part)")
_COPIES = 2  # at a time: they must not starve the reads that a step waits for
_TOUCH_S = 60.0
_WRONG_S = 300.0  # after a copy failed, none is tried for so long


@dataclass(frozen=True, kw_only=True)
class Cache:
    """root: a folder on a local disk. limit_gib: what it may hold. decode: keep pixels."""

    root: str
    limit_gib: float
    decode: bool = False

    def __post_init__(self) -> None:
        if self.limit_gib <= 0:
            raise ValueError(f"limit_gib: {self.limit_gib} must be above 0")

    @property
    def limit_bytes(self) -> int:
        """The limit, in bytes."""
        return int(self.limit_gib * 2**30)


class CachedSource:
    """A source that keeps what it was asked for.

    Raises ValueError when the limit is below what the order mixes at once (`block_shards` shards,
    or all of them): then every shard would be gone before it is used again.
    """

    def __init__(
        self,
        cache: Cache,
        dataset: Dataset,
        catalog: Catalog,
        origin: Source,
        *,
        block_shards: int | None,
    ) -> None:
        self._clip = dataset.manifest.clip
        self._catalog = catalog
        self._origin = origin
        self._decode = cache.decode
        self._numbers = {shard.sha256: n for n, shard in enumerate(dataset.manifest.shards)}
        sizes = sorted((self._size(shard) for shard in dataset.manifest.shards), reverse=True)
        needed = sum(sizes[:block_shards])
        if needed > cache.limit_bytes:
            raise ValueError(
                f"cache.limit_gib: {cache.limit_gib:g} is less than the {needed / 2**30:.3g} GiB "
                f"that are mixed at a time (block_shards {block_shards or 'none: all'}); raise "
                "limit_gib, lower block_shards, or read without a cache"
            )
        self._folder = Folder(Path(cache.root), cache.limit_bytes)
        clip = int(np.prod(self._clip.shape))
        self._files: OpenFiles[OpenFile] = OpenFiles(
            lambda path: DecodedFile(path, clip) if self._decode else OpenFile(path)
        )
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._pool: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()
        self._wrong_until = 0.0

    @property
    def remote(self) -> bool:
        """Whether the origin is."""
        return self._origin.remote

    def fetch(self, shard: Shard, ranges: Sequence[Range], *, fresh: bool = False) -> list[bytes]:
        if fresh:
            if not self._decode:  # a kept clip has its own checksum
                self._folder.drop(self._name(shard))
                self._files.forget(self._path(shard))
            return self._origin.fetch(shard, ranges, fresh=True)
        file = None if self._decode else self._find(shard)
        if file is None:
            return self._origin.fetch(shard, ranges)
        return [os.pread(file.descriptor, size, offset) for offset, size in ranges]

    def pixels(self, shard: Shard, index: ShardIndex) -> Pixels | None:
        if not self._decode and self._clip.encoding != "u8":
            return None
        file = self._find(shard)
        if file is None:
            return self._origin.pixels(shard, index)
        return file if isinstance(file, DecodedFile) else RawMembers(file, index)

    def stop(self) -> None:
        self._stopping.set()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._asked.clear()
        self._stopping.clear()

    def _find(self, shard: Shard) -> OpenFile | None:
        """The shard's file; when there is none, a copy is asked for."""
        try:
            file = self._files.get(self._path(shard))
        except OSError:
            self._ask(shard)
            return None
        if not file.touch(_TOUCH_S):
            self._files.forget(self._path(shard))
        return file

    def _ask(self, shard: Shard) -> None:
        with self._lock:
            if shard.sha256 in self._asked or time.monotonic() < self._wrong_until:
                return
            self._asked.add(shard.sha256)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_COPIES, thread_name_prefix="shards-cache")
            self._pool.submit(self._copy, shard)

    def _copy(self, shard: Shard) -> None:
        try:
            with self._folder.writing(shard.sha256, self._name(shard), self._size(shard)) as file:
                if file is not None:
                    (self._write_clips if self._decode else self._write_tar)(shard, file)
        except BadSampleError as error:  # stays asked for, so that it is not tried again
            _log.warning("the cache at %s leaves out: %s", self._folder.root, error)
            return
        except OSError as error:
            if not self._stopping.is_set():
                _log.warning("the cache at %s does not copy now: %s", self._folder.root, error)
                self._wrong_until = time.monotonic() + _WRONG_S
        with self._lock:
            self._asked.discard(shard.sha256)

    def _write_tar(self, shard: Shard, file: int) -> None:
        digest = hashlib.sha256()
        for offset in range(0, shard.bytes, LARGEST):
            if self._stopping.is_set():
                raise OSError("stopped")
            data = self._origin.fetch(shard, [(offset, min(LARGEST, shard.bytes - offset))])[0]
            digest.update(data)
            os.pwrite(file, data, offset)
        if digest.hexdigest() != shard.sha256:
            raise BadSampleError(f"{shard.tar} differs from the manifest's sha256")

    def _write_clips(self, shard: Shard, file: int) -> None:
        index = self._catalog.index(self._numbers[shard.sha256])
        crcs = np.zeros(shard.samples, dtype="<u4")
        clip = np.empty(self._clip.shape, dtype=np.uint8)
        for sample in range(shard.samples):
            if self._stopping.is_set():
                raise OSError("stopped")
            extent = index.clip(sample)
            data = self._origin.fetch(shard, [(extent.offset, extent.size)])[0]
            if google_crc32c.value(data) != extent.crc32c:
                continue  # left zeros: the reader goes to the origin, and judges
            with suppress(BadSampleError):
                decode_into(data, clip, self._clip.encoding)
                crcs[sample] = google_crc32c.value(clip.reshape(-1))
                os.pwrite(file, clip.reshape(-1).data, sample * clip.nbytes)
        os.pwrite(file, crcs.tobytes(), shard.samples * clip.nbytes)

    def _name(self, shard: Shard) -> str:
        return f"{shard.sha256}.{'u8' if self._decode else 'tar'}"

    def _path(self, shard: Shard) -> str:
        return str(self._folder.root / self._name(shard))

    def _size(self, shard: Shard) -> int:
        clip = int(np.prod(self._clip.shape))
        return shard.samples * (clip + 4) if self._decode else shard.bytes


class DecodedFile(OpenFile):
    """A `.u8` file of the cache. Raises OSError when its checksums cannot be read."""

    def __init__(self, path: str, clip_bytes: int) -> None:
        super().__init__(path)
        samples = os.fstat(self.descriptor).st_size // (clip_bytes + 4)
        table = os.pread(self.descriptor, 4 * samples, clip_bytes * samples)
        self._crcs = np.frombuffer(table, dtype="<u4").tolist()

    def read_into(self, sample: int, out: NDArray[np.uint8]) -> bool:
        """See Pixels."""
        kept = self._crcs[sample] if sample < len(self._crcs) else 0
        return (
            kept != 0
            and os.preadv(self.descriptor, [out.data], sample * out.nbytes) == out.nbytes
            and google_crc32c.value(out) == kept
        )


class Folder:
    """The cache's files on disk: a byte limit, whole files only, safe between processes."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self._limit = limit_bytes
        root.mkdir(parents=True, exist_ok=True)
        for part in root.glob("*.part"):
            self._remove_if_abandoned(part)

    def drop(self, name: str) -> None:
        """Removes a file that turned out bad."""
        (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def writing(self, stem: str, name: str, size: int) -> Iterator[int | None]:
        """A descriptor to write `size` bytes to, which become `name` when the block ends well.

        None when the file is already there or someone else is writing it. Raises OSError when
        there is no room on the disk.
        """
        part = self.root / f"{stem}.part"
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _locked(file) or not _is(part, file):
                yield None
                return
            try:
                if (self.root / name).exists():
                    yield None
                    return
                with self._alone():
                    self._make_room(size)
                    os.ftruncate(file, 0)
                    os.posix_fallocate(file, 0, size)
                yield file
                os.fsync(file)
                with self._alone():
                    part.rename(self.root / name)
            finally:
                if _is(part, file):
                    part.unlink(missing_ok=True)
        finally:
            os.close(file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Locks the folder itself: two who make room must not count on the same bytes, and who
        counts must not miss a file that is just being renamed.
        """
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _make_room(self, size: int) -> None:
        found = []
        for entry in os.scandir(self.root):
            if _OURS.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    found.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
        used = sum(bytes_ for _, bytes_, _ in found)
        for _, bytes_, path in sorted(found):
            if used + size <= self._limit:
                return
            if not path.endswith(".part"):
                Path(path).unlink(missing_ok=True)
                used -= bytes_

    def _remove_if_abandoned(self, part: Path) -> None:
        with suppress(FileNotFoundError):
            file = os.open(part, os.O_RDWR | os.O_CLOEXEC)
            try:
                if _locked(file) and _is(part, file):
                    part.unlink(missing_ok=True)
            finally:
                os.close(file)


def _locked(file: int) -> bool:
    """Takes the file's lock, if nobody else has it; the kernel frees it with the descriptor."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, file: int) -> bool:
    """Whether the path still leads to the open file: it may have been renamed meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
