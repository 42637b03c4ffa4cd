"""Where the i-th sample of a shard lies: the indexes, loaded when needed and kept within a bound.

An index becomes a few arrays (some 60 bytes a sample). The least recently used ones are dropped
beyond `limit_mib`, so that neither memory nor start-up grows with the dataset.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.dataset import Dataset
from shards.manifest import Shard
from shards.quarantine import BadSampleError
from shards.storage import UnreachableError
from shards.tarfmt import INDEX_HEADER, parse_index


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """A member's data in its tar: bytes [offset, offset + size), and their crc32c."""

    offset: int
    size: int
    crc32c: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """The samples of one shard: keys as bytes (n,), and (offset, size, crc32c) int64 (n, 3).

    json: the same for the provenance members; size -1 where a sample has none.
    """

    keys: NDArray[np.bytes_]
    clips: NDArray[np.int64]
    jsons: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.keys.nbytes + self.clips.nbytes + self.jsons.nbytes

    def key(self, sample: int) -> str:
        """The sample's key."""
        return str(self.keys[sample].decode("ascii"))

    def clip(self, sample: int) -> Extent:
        """Where the clip lies."""
        return _extent(self.clips[sample])

    def json(self, sample: int) -> Extent | None:
        """Where the provenance lies, if the sample has any."""
        return _extent(self.jsons[sample]) if self.jsons[sample, 1] >= 0 else None


class Catalog:
    """The indexes of a dataset; safe to use from many threads."""

    def __init__(self, dataset: Dataset, *, limit_mib: int = 64) -> None:
        self._dataset = dataset
        self._limit = limit_mib << 20
        self._held: OrderedDict[int, ShardIndex] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def index(self, shard: int) -> ShardIndex:
        """The index of the shard at that place of the manifest.

        Raises BadSampleError when it is missing, differs from the manifest or does not parse, and
        UnreachableError.
        """
        with self._lock:
            found = self._held.get(shard)
            if found is not None:
                self._held.move_to_end(shard)
                return found
        loaded = self._load(self._dataset.manifest.shards[shard])
        with self._lock:
            if shard not in self._held:
                self._held[shard] = loaded
                self._bytes += loaded.nbytes
            while self._bytes > self._limit and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= dropped.nbytes
        return loaded

    def _load(self, shard: Shard) -> ShardIndex:
        try:
            text = self._dataset.store.read(shard.index)
            if hashlib.sha256(text).hexdigest() != shard.index_sha256:
                raise BadSampleError(f"{shard.index} differs from the manifest's sha256")
            index = read_index(text, self._dataset.manifest.clip.encoding, where=shard.index)
        except UnreachableError:
            raise
        except (OSError, ValueError) as error:
            raise BadSampleError(f"{shard.index}: {error}") from None
        if len(index.keys) != shard.samples:
            raise BadSampleError(f"{shard.index}: {len(index.keys)} samples, not {shard.samples}")
        return index


def read_index(text: bytes, encoding: str, *, where: str) -> ShardIndex:
    """The samples of an index file: its members with the extension `encoding`, in order.

    Raises ValueError when the text is no index.
    """
    header, _, body = text.partition(b"\n")
    fields = body.replace(b"\n", b"\t").split(b"\t")[:-1]
    if header != INDEX_HEADER.encode() or len(fields) % 4:
        parse_index(text, where=where)  # names what is wrong
        raise ValueError(f"{where}: not an index")
    names = fields[0::4]
    try:
        table = np.array(fields, dtype=np.bytes_).reshape(-1, 4)
        places = np.empty((len(names), 3), dtype=np.int64)
        places[:, :2] = table[:, 1:3].astype(np.int64)
        places[:, 2] = [int(crc, 16) for crc in fields[3::4]]
    except ValueError:
        parse_index(text, where=where)
        raise
    return _group(names, places, encoding.encode())


def _group(names: list[bytes], places: NDArray[np.int64], encoding: bytes) -> ShardIndex:
    keys: list[bytes] = []
    clips: list[int] = []
    json_of: dict[bytes, int] = {}
    for row, name in enumerate(names):
        dot = name.find(b".", name.rfind(b"/") + 1)  # as tarfmt.split_name, on bytes
        key, extension = (name[:dot], name[dot + 1 :]) if dot >= 0 else (name, b"")
        if extension == encoding:
            keys.append(key)
            clips.append(row)
        elif extension == b"json":
            json_of[key] = row
    jsons = np.array([json_of.get(key, -1) for key in keys], dtype=np.int64)
    absent = np.array([[0, -1, 0]], dtype=np.int64)
    return ShardIndex(
        keys=np.array(keys, dtype=np.bytes_),
        clips=places[clips],
        jsons=np.concatenate([places, absent])[jsons],
    )


def _extent(row: NDArray[Any]) -> Extent:
    return Extent(offset=int(row[0]), size=int(row[1]), crc32c=int(row[2]))
