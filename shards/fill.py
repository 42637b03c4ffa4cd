"""Fills the slots of a batch: fetch, check, decode; once more if that fails; else quarantine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import google_crc32c

from shards.batch import Batch, Place
from shards.catalog import Catalog, Extent, ShardIndex
from shards.dataset import Dataset
from shards.decode import decode_into
from shards.fetch import Source
from shards.quarantine import BadSampleError, Quarantine
from shards.storage import UnreachableError


class Filler:
    """Works on disjoint slots from many threads at once."""

    def __init__(
        self, dataset: Dataset, catalog: Catalog, source: Source, quarantine: Quarantine
    ) -> None:
        self._shards = dataset.manifest.shards
        self._encoding = dataset.manifest.clip.encoding
        self._catalog = catalog
        self._source = source
        self._quarantine = quarantine

    def fill(self, batch: Batch, places: Sequence[Place]) -> None:
        """Fills these slots, sorted by shard.

        Raises DataFault when too many cannot be, UnreachableError when the store is gone.
        """
        for shard, group in groupby(places, key=itemgetter(1)):
            for place in self._fill_shard(batch, shard, list(group)):
                self._fill_again(batch, place)

    def _fill_shard(self, batch: Batch, shard: int, places: list[Place]) -> list[Place]:
        """Fills slots from one shard; those it could not."""
        try:
            index = self._catalog.index(shard)
            pixels = self._source.pixels(self._shards[shard], index)
            rest = []
            for place in places:
                slot, _, sample = place
                batch.keys[slot] = index.key(sample)
                flat = batch.video_bthwc[slot].reshape(-1)
                if pixels is None or not pixels.read_into(sample, flat):
                    rest.append(place)
            if rest or batch.json is not None:
                return self._fill_fetched(batch, places, set(rest), index)
        except (OSError, BadSampleError):
            return places
        return []

    def _fill_fetched(
        self, batch: Batch, places: list[Place], undecoded: set[Place], index: ShardIndex
    ) -> list[Place]:
        wanted: list[tuple[Place, str, Extent]] = []
        for place in places:
            if place in undecoded:
                wanted.append((place, "clip", index.clip(place.sample)))
            provenance = index.json(place.sample) if batch.json is not None else None
            if provenance is not None:
                wanted.append((place, "json", provenance))
        ranges = [(extent.offset, extent.size) for _, _, extent in wanted]
        parts = self._source.fetch(self._shards[places[0].shard], ranges)
        failed = []
        for (place, kind, extent), data in zip(wanted, parts, strict=True):
            try:
                self._take(batch, place, kind, extent, data)
            except BadSampleError:
                failed.append(place)
        return list(dict.fromkeys(failed))

    def _fill_again(self, batch: Batch, place: Place) -> None:
        shard = self._shards[place.shard]
        try:
            index = self._catalog.index(place.shard)
            extents = [("clip", index.clip(place.sample))]
            provenance = index.json(place.sample) if batch.json is not None else None
            if provenance is not None:
                extents.append(("json", provenance))
            batch.keys[place.slot] = index.key(place.sample)
            ranges = [(extent.offset, extent.size) for _, extent in extents]
            parts = self._source.fetch(shard, ranges, fresh=True)
            for (kind, extent), data in zip(extents, parts, strict=True):
                self._take(batch, place, kind, extent, data)
        except UnreachableError:
            raise
        except (OSError, BadSampleError) as error:
            batch.video_bthwc[place.slot] = 0
            batch.valid_b[place.slot] = False
            if not batch.keys[place.slot]:  # not even the index could be read
                batch.keys[place.slot] = f"{shard.name}:{place.sample}"
            self._quarantine.add(batch.keys[place.slot], str(error))

    def _take(self, batch: Batch, place: Place, kind: str, extent: Extent, data: bytes) -> None:
        check(extent, data)
        if kind == "clip":
            decode_into(data, batch.video_bthwc[place.slot], self._encoding)
            return
        assert batch.json is not None
        try:
            batch.json[place.slot] = json.loads(data)
        except ValueError as error:
            raise BadSampleError(f"provenance is not JSON: {error}") from None


def check(extent: Extent, data: bytes) -> None:
    """Raises BadSampleError when `data` is not what the index promised."""
    if len(data) != extent.size:
        raise BadSampleError(f"the tar ends {extent.size - len(data)} bytes before the member does")
    if google_crc32c.value(data) != extent.crc32c:
        raise BadSampleError("the data's crc32c differs from the index")
