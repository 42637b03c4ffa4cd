"""Byte ranges of shards, from where they lie: local files by positional reads, or a store."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shards.manifest import Shard
from shards.storage import LocalStore, Store

Range = tuple[int, int]  # offset, size

GAP = 64 << 10  # ranges of a shard closer than this are one request
LARGEST = 8 << 20  # and no request grows beyond this by joining
_OPEN_FILES = 128


class Decoded(Protocol):
    """A shard's clips, kept as pixels."""

    def read_into(self, sample: int, video_thwc: NDArray[np.uint8]) -> bool:
        """Whether the clip is there and whole; then its pixels are in `video_thwc`."""
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

    def read_into(self, shard: Shard, offset: int, out: memoryview) -> int:
        """Fills `out` from `offset`; the bytes read, fewer only where the file ends."""
        ...

    def decoded(self, shard: Shard) -> Decoded | None:
        """The shard's clips as pixels, where such are kept."""
        ...

    def stop(self) -> None:
        """Ends what runs in the background, until the next fetch."""
        ...


def open_source(store: Store) -> Source:
    """The plain source over a dataset's store."""
    return LocalSource(store) if isinstance(store, LocalStore) else RemoteSource(store)


class LocalSource:
    """Positional reads on files that stay open."""

    remote = False

    def __init__(self, store: LocalStore) -> None:
        self._root = store.root
        self._files = OpenFiles()

    def fetch(self, shard: Shard, ranges: Sequence[Range], *, fresh: bool = False) -> list[bytes]:
        path = str(self._root / shard.tar)
        if fresh:
            self._files.forget(path)  # it may have been replaced under its name
        file = self._files.get(path)
        return [os.pread(file.descriptor, size, offset) for offset, size in ranges]

    def read_into(self, shard: Shard, offset: int, out: memoryview) -> int:
        file = self._files.get(str(self._root / shard.tar))
        return os.preadv(file.descriptor, [out], offset)

    def decoded(self, shard: Shard) -> None:
        del shard

    def stop(self) -> None:
        """Nothing runs."""


class OpenFiles:
    """Files by path, kept open for reading; the least recently used are let go."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> OpenFile:
        """The open file. Raises OSError when it cannot be opened."""
        with self._lock:
            if path not in self._open:
                self._open[path] = OpenFile(path)
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

    def read_into(self, shard: Shard, offset: int, out: memoryview) -> int:
        data = self._store.read_range(shard.tar, offset, len(out))
        out[: len(data)] = data
        return len(data)

    def decoded(self, shard: Shard) -> None:
        del shard

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
