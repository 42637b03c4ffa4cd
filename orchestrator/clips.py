"""Clips of a dataset, each once, for commands that measure or show them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from orchestrator.overrides import suggest
from orchestrator.pictures import Pixels
from orchestrator.provided import provide
from orchestrator.site import Site
from shards.read import Dataset, Reader, Slice, open_dataset
from shards.storage import is_remote

P = TypeVar("P", bound=Sized)
_BATCH = 32
_TOLD_EVERY_S = 10.0
_SEED = 0  # of the order: the first n clips are of n places all over the dataset


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Some clips. video_nthwc: uint8. keys: their names. notes: what their dataset says of each."""

    video_nthwc: Pixels
    keys: list[str]
    notes: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.keys)


def open_data(name: str, site: Site, shape: tuple[int, int, int, int]) -> Dataset:
    """The dataset `name` of SHARDS_ROOT, or the one at a path; its clips are `shape` (T, H, W, C).

    Raises ValueError or OSError, for the user: none there, with the nearest name, or other clips.
    """
    provide(name, site)
    try:
        dataset = open_dataset(name if "/" in name else site.dataset(name))
    except FileNotFoundError as error:
        names = [] if "/" in name or is_remote(site.shards_root) else _names(Path(site.shards_root))
        near = suggest(name, names) if names else ""
        raise ValueError(f"--data {name}: {error}{near}") from None
    if dataset.manifest.clip.shape != shape:
        raise ValueError(
            f"--data {name}: its clips are {dataset.manifest.clip.shape} (T, H, W, C), the model's "
            f"{shape}"
        )
    return dataset


def clips_of(dataset: Dataset, most: int | None = None) -> Iterator[Clips]:
    """The dataset's clips in batches, each clip once, at most `most`; those that cannot be read are
    left out. Which ones, and in which order, depends on the dataset and `most` alone."""
    count = dataset.samples if most is None else min(most, dataset.samples)
    step = min(_BATCH, count)
    slice_ = Slice(rank=0, world_size=1, global_batch=step)
    reader = Reader(dataset, seed=_SEED, slice=slice_, prefetch_mib=32, threads=2, with_json=True)
    with closing(reader.batches(0)) as batches:
        for start in range(0, count, step):
            batch = next(batches)
            kept = np.flatnonzero(batch.valid_b[: count - start])
            assert batch.json is not None
            if len(kept):
                yield Clips(
                    video_nthwc=batch.video_bthwc[kept],
                    keys=[batch.keys[n] for n in kept],
                    notes=[batch.json[n] for n in kept],
                )


def some_clips(dataset: Dataset, most: int) -> Clips:
    """At most `most` clips at once; see `clips_of`."""
    parts = list(clips_of(dataset, most))
    return Clips(
        video_nthwc=np.concatenate([part.video_nthwc for part in parts]),
        keys=[key for part in parts for key in part.keys],
        notes=[note for part in parts for note in part.notes],
    )


def watched(parts: Iterable[P], what: str, total: int) -> Iterator[P]:
    """The parts, each of some clips, as they come: with a bar on a terminal, else with a line on
    stderr every few seconds that says how many of `total` clips are done."""
    done, told = 0, time.monotonic()
    with tqdm(total=total, desc=what, unit="clip", disable=None) as bar:
        for part in parts:
            yield part
            done += len(part)
            bar.update(len(part))
            if bar.disable and time.monotonic() - told > _TOLD_EVERY_S:
                told = time.monotonic()
                print(f"{what}: {done} of {total} clips", file=sys.stderr, flush=True)


def _names(root: Path) -> list[str]:
    return [path.parent.name for path in root.glob("*/manifest.json")]
