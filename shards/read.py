"""Batches of clips, in the order that is a formula, whatever the number of workers and threads.

A step's plan is pure: `order` names the samples at the rank's positions. Threads fetch, check and
decode them straight into the batch's array, so what comes out does not depend on who was faster.
A sample that fails its checksum or does not decode is read once more from the origin, then masked
(`valid_b` False, zeros), listed in `Reader.quarantined` and counted; every other sample keeps its
place.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.batch import Batch, Place, Slice
from shards.buffers import Buffers
from shards.cache import Cache, CachedSource
from shards.catalog import Catalog
from shards.dataset import Dataset, open_dataset
from shards.decode import check_encoding
from shards.fetch import Source, open_source
from shards.fill import Filler
from shards.order import ORDER_VERSION, Order
from shards.quarantine import DataFault, Quarantine

__all__ = [
    "Batch",
    "Cache",
    "DataFault",
    "Dataset",
    "Reader",
    "Slice",
    "check_state",
    "open_dataset",
]

_CHUNK = 8  # at least so many samples a task: enough to hide what a task costs
_PLANNED = 256  # samples located at a time: the formula takes as long for one as for hundreds
_MOST_AHEAD = 64  # steps, however small: beyond this more is only more to throw away
_REMOTE_MIB = 256  # of batches kept ready, to bridge a slow request
_LOCAL_MIB = 64  # raw clips cost half as much while the batches' memory stays in the CPU's cache
_REMOTE_THREADS = 32  # requests in flight; they wait more than they work


class Reader:
    """Reads one rank's batches of a dataset, ahead of its user.

    seed, block_shards: the order's (see `shards.order`). prefetch_mib: decoded batches made
    ready while one is used: at least one, or none with 0; None for 64 (files) or 256 (S3).
    threads: that fetch and decode; None for the cores (files) or 32 (S3).
    cache: a folder of this node that keeps whole shards; see `shards.cache`.
    with_json: also read the provenance members. tolerance: the share of the dataset's samples
    that may be unreadable before DataFault is raised.

    Raises ValueError when the dataset has fewer samples than a global batch, or a value is wrong.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        slice: Slice,
        block_shards: int | None = None,
        prefetch_mib: int | None = None,
        threads: int | None = None,
        cache: Cache | None = None,
        with_json: bool = False,
        tolerance: float = 0.001,
    ) -> None:
        if slice.global_batch > dataset.samples:
            raise ValueError(
                f"fewer clips than one global batch: the dataset at {dataset.store.location} has "
                f"{dataset.samples}, global_batch is {slice.global_batch}; lower global_batch to "
                f"at most {dataset.samples}, or ingest more video"
            )
        if threads is not None and threads < 1:
            raise ValueError(f"threads: {threads} must be at least 1")
        check_encoding(dataset.manifest.clip)
        self._dataset = dataset
        self._slice = slice
        self._seed = seed
        self._block_shards = block_shards
        self._order = Order(
            dataset.sizes,
            version=dataset.version,
            seed=seed,
            block_shards=block_shards,
        )
        self._with_json = with_json
        self._quarantine = Quarantine(samples=dataset.samples, tolerance=tolerance)
        catalog = Catalog(dataset)
        self._source: Source = open_source(dataset)
        if prefetch_mib is None:
            prefetch_mib = _REMOTE_MIB if self._source.remote else _LOCAL_MIB
        self._ahead = self._steps_ahead(prefetch_mib)
        self._buffers = Buffers(self._ahead + 3)  # the next, the user's, and the one before
        if cache is not None:
            self._source = CachedSource(
                cache, dataset, catalog, self._source, block_shards=block_shards
            )
        self._filler = Filler(dataset, catalog, self._source, self._quarantine)
        self._threads = threads or (
            _REMOTE_THREADS if self._source.remote else len(os.sched_getaffinity(0))
        )

    @property
    def quarantined(self) -> dict[str, str]:
        """The samples that could not be read so far: {key: reason}."""
        return dict(self._quarantine.listed)

    def state(self, step: int) -> dict[str, Any]:
        """All that is needed to go on at `step` (the number of steps done), as plain JSON."""
        return {
            "position": step * self._slice.global_batch,
            "seed": self._seed,
            "order_version": ORDER_VERSION,
            "dataset_version": self._dataset.version,
            "global_batch": self._slice.global_batch,
            "block_shards": self._block_shards,
        }

    def batches(self, first_step: int) -> Generator[Batch, None, None]:
        """This rank's batches from `first_step` on, without end.

        Close the iterator to stop the threads. Raises ValueError at once for a negative step, and
        DataFault in place of a batch when too many samples cannot be read, UnreachableError when
        the store's server stays away.
        """
        if first_step < 0:
            raise ValueError(f"first_step: {first_step} must be at least 0")
        return self._batches(first_step)

    def _batches(self, step: int) -> Generator[Batch, None, None]:
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        plans = self._plans(step)
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="shards-read")
        try:
            while True:
                while len(pending) <= self._ahead:
                    pending.append(self._start(*next(plans), pool))
                batch, work = pending.popleft()
                for done in work:
                    done.result()
                yield batch
        finally:
            self._source.stop()
            pool.shutdown(wait=True, cancel_futures=True)

    def _steps_ahead(self, prefetch_mib: int) -> int:
        if prefetch_mib == 0:
            return 0
        share = -(-self._slice.global_batch // self._slice.world_size)
        clip = int(np.prod(self._dataset.manifest.clip.shape))
        return min(max((prefetch_mib << 20) // (share * clip), 1), _MOST_AHEAD)

    def _plans(self, step: int) -> Iterator[tuple[int, NDArray[np.int64], list[Place]]]:
        """Each step from `step` on: its number, this rank's positions, and where they lie."""
        steps = -(-_PLANNED // len(self._slice.positions(step)))
        for first in itertools.count(step, steps):
            every = np.stack([self._slice.positions(first + n) for n in range(steps)])
            shards, samples = self._order.locate(every)
            slots = np.lexsort((samples, shards))
            sorted_by_place = (
                slots.tolist(),
                np.take_along_axis(shards, slots, 1).tolist(),
                np.take_along_axis(samples, slots, 1).tolist(),
            )
            for n, row in enumerate(zip(*sorted_by_place, strict=True)):
                yield first + n, every[n], list(map(Place, *row))

    def _start(
        self,
        step: int,
        positions: NDArray[np.int64],
        places: list[Place],
        pool: ThreadPoolExecutor,
    ) -> tuple[Batch, list[Future[None]]]:
        count = len(positions)
        batch = Batch(
            step=step,
            video_bthwc=self._buffers.take((count, *self._dataset.manifest.clip.shape)),
            keys=[""] * count,
            positions=positions,
            valid_b=np.ones(count, dtype=np.bool_),
            json=[{} for _ in range(count)] if self._with_json else None,
        )
        return batch, [
            pool.submit(self._filler.fill, batch, chunk) for chunk in self._chunks(places)
        ]

    def _chunks(self, places: list[Place]) -> list[list[Place]]:
        if not self._source.remote:
            size = max(_CHUNK, -(-len(places) // self._threads))
            return [places[i : i + size] for i in range(0, len(places), size)]
        # One task per shard: each may wait for its own request, and neighbours share one.
        return [list(group) for _, group in groupby(places, key=lambda place: place.shard)]


def check_state(
    state: dict[str, Any], dataset: Dataset, seed: int, block_shards: int | None = None
) -> int:
    """The run position in `state`, once it is sure to mean the same samples here.

    Raises ValueError when the state was saved for another dataset version, order version, seed
    or block_shards: going on would repeat some samples and lose others.
    """
    here = {
        "order_version": ORDER_VERSION,
        "dataset_version": dataset.version,
        "seed": seed,
        "block_shards": block_shards,
    }
    for name, value in here.items():
        if state.get(name) != value:
            raise ValueError(
                f"{name}: the saved state has {state.get(name)!r}, this run {value!r}; a position "
                "means other samples there. Resume with the same value, or start a new run"
            )
    return int(state["position"])
