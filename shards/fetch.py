"""Byte ranges of shards, from where they lie: local files by positional reads, or a store."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from shards.catalog import ShardIndex
from shards.dataset import Dataset
from shards.manifest import Shard
from shards.storage import LocalStore, Store

Range = tuple[int, int]  # offset, size

GAP = 64 << 10  # ranges of a shard closer than this are one request
LARGEST = 8 << 20  # and no request grows beyond this by joining
_OPEN_FILES = 128


class Pixels(Protocol):
    """A shard's clips, where they are stored as pixels on a local disk."""

    def read_into(self, sample: int, out: NDArray[np.uint8]) -> bool:
        """Whether the clip is there and whole; then its pixels are in `out`, uint8 (T*H*W*C,)."""
        ...


class Source(Protocol):
    """Where a reader gets the bytes of a shard from."""

    @property
    def remote(self) -> bool:
        """Whether a read is a request, that takes its time."""
        ...

    def fetch(self, shard: Shard, ranges: Sequence[Range], *, fresh: bool = False) -> list[bytes]:
        """The bytes of each range; shorter where the file ends. `fresh` asks behind any cache.

        Raises OSError when the shard cannot be read.
        """
        ...

    def pixels(self, shard: Shard, index: ShardIndex) -> Pixels | None:
        """The shard's clips as pixels, where such are near. Raises OSError."""
        ...

    def stop(self) -> None:
        """Ends what runs in the background, until the next fetch."""
        ...


def open_source(dataset: Dataset) -> Source:
    """The plain source over a dataset's store."""
    if isinstance(dataset.store, LocalStore):
        return LocalSource(dataset.store, raw=dataset.manifest.clip.encoding == "u8")
    return RemoteSource(dataset.store)


class LocalSource:
    """Positional reads on files that stay open. raw: the clips are stored as pixels."""

    remote = False

    def __init__(self, store: LocalStore, *, raw: bool) -> None:
        self._root = store.location
        self._raw = raw
        self._files = OpenFiles(OpenFile)

    def fetch(self, shard: Shard, ranges: Sequence[Range], *, fresh: bool = False) -> list[bytes]:
        path = f"{self._root}/{shard.tar}"
        if fresh:
            self._files.forget(path)  # it may have been replaced under its name
        file = self._files.get(path)
        return [os.pread(file.descriptor, size, offset) for offset, size in ranges]

    def pixels(self, shard: Shard, index: ShardIndex) -> RawMembers | None:
        if not self._raw:
            return None
        return RawMembers(self._files.get(f"{self._root}/{shard.tar}"), index)

    def stop(self) -> None:
        """Nothing runs."""


class RawMembers:
    """The `u8` members of a tar on a local disk."""

    def __init__(self, file: OpenFile, index: ShardIndex) -> None:
        self._file = file
        self._clips = index.clips

    def read_into(self, sample: int, out: NDArray[np.uint8]) -> bool:
        """See Pixels."""
        offset, size, crc = self._clips[sample].tolist()
        return (
            size == out.nbytes
            and os.preadv(self._file.descriptor, [out.data], offset) == size
            and bool(google_crc32c.value(out) == crc)
        )


FileT = TypeVar("FileT", bound="OpenFile")


class OpenFiles(Generic[FileT]):
    """Files by path, kept open for reading; the least recently used are let go."""

    def __init__(self, opened: Callable[[str], FileT]) -> None:
        self._opened = opened
        self._open: OrderedDict[str, FileT] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> FileT:
        """The open file. Raises OSError when it cannot be opened."""
        with self._lock:
            if path not in self._open:
                self._open[path] = self._opened(path)
            self._open.move_to_end(path)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
            return self._open[path]

    def forget(self, path: str) -> None:
        """Lets the file go; those who still use it may finish."""
        with self._lock:
            self._open.pop(path, None)


class OpenFile:
    """A descriptor that closes when its last user lets go of it, whoever that is."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._touched = -math.inf

    def touch(self, every_s: float) -> bool:
        """Sets the modification time to now, unless that was done less than `every_s` seconds ago.

        Whether the file still has a name.
        """
        now = time.monotonic()
        if now - self._touched < every_s:
            return True
        self._touched = now
        with suppress(PermissionError):  # another user's, who does it
            os.utime(self.descriptor)
        return os.fstat(self.descriptor).st_nlink > 0

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class RemoteSource:
    """Ranged requests to a store, neighbouring ranges joined."""

    remote = True

    def __init__(self, store: Store) -> None:
        self._store = store

    def fetch(self, shard: Shard, ranges: Sequence[Range], *, fresh: bool = False) -> list[bytes]:
        del fresh  # nothing is kept here
        found: dict[Range, bytes] = {}
        for run in join_ranges(ranges):
            first = run[0][0]
            last = max(offset + size for offset, size in run)
            data = self._store.read_range(shard.tar, first, last - first)
            for offset, size in run:
                found[offset, size] = data[offset - first : offset - first + size]
        return [found[range_] for range_ in ranges]

    def pixels(self, shard: Shard, index: ShardIndex) -> None:
        del shard, index

    def stop(self) -> None:
        """Nothing runs."""


def join_ranges(ranges: Sequence[Range]) -> list[list[Range]]:
    """Runs of ranges, by offset, that are worth one request each (see GAP and LARGEST)."""
    runs: list[list[Range]] = []
    end = 0
    for offset, size in sorted(set(ranges)):
        near = runs and offset - end <= GAP and offset + size - runs[-1][0][0] <= LARGEST
        if near:
            runs[-1].append((offset, size))
            end = max(end, offset + size)
        else:
            runs.append([(offset, size)])
            end = offset + size
    return runs
