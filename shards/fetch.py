"""Byte ranges of shards, from where they lie: local files by positional reads, or a store."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from shards.manifest import Shard
from shards.storage import LocalStore, Store

Range = tuple[int, int]  # offset, size

GAP = 64 << 10  # ranges of a shard closer than this are one request
LARGEST = 8 << 20  # and no request grows beyond this by joining
_OPEN_FILES = 128


class Source(Protocol):
    """Where a reader gets the bytes of a shard from."""

    remote: bool

    def fetch(self, shard: Shard, ranges: Sequence[Range], *, fresh: bool = False) -> list[bytes]:
        """The bytes of each range; shorter where the file ends. `fresh` asks behind any cache.

        Raises OSError when the shard cannot be read.
        """
        ...


def open_source(store: Store) -> Source:
    """The plain source over a dataset's store."""
    return LocalSource(store) if isinstance(store, LocalStore) else RemoteSource(store)


class LocalSource:
    """Positional reads on files that stay open, the least recently used closed first."""

    remote = False

    def __init__(self, store: LocalStore) -> None:
        self._root = store.root
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, shard: Shard, ranges: Sequence[Range], *, fresh: bool = False) -> list[bytes]:
        file = self._file(shard.tar, fresh)
        return [os.pread(file.descriptor, size, offset) for offset, size in ranges]

    def _file(self, name: str, fresh: bool) -> OpenFile:
        with self._lock:
            if fresh:
                self._open.pop(name, None)  # it may have been replaced under its name
            if name not in self._open:
                self._open[name] = OpenFile(str(self._root / name))
            self._open.move_to_end(name)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
            return self._open[name]


class OpenFile:
    """A descriptor that closes when its last user lets go of it, whoever that is."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

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
