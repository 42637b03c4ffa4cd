"""What is in a dataset: `python -m shards.stats DATASET [--clips 512] [--json]`.

Counts and sizes come from the manifest, clips of each class and attribute and captions' words, too;
video durations and rejections from the ingest's report where there is one; brightness, contrast and
motion are measured on a random spread of clips.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.batch import Slice
from shards.catalog import Catalog
from shards.dataset import Dataset, open_dataset
from shards.manifest import ATTRIBUTE, LABEL, OF_CONTENT, WORD
from shards.quarantine import DataFault
from shards.read import Reader

_BINS = 12
_BAR = 40
_MOST_BARS = 50
Floats = NDArray[np.float64]


def measure_clips(dataset: Dataset, count: int) -> dict[str, Floats]:
    """Of up to `count` clips: mean and spread of the pixels, and their mean change per frame.

    All in 0..255. Raises DataFault when too many cannot be read.
    """
    count = min(count, dataset.samples)
    batch = min(16, count)
    part = Slice(rank=0, world_size=1, global_batch=batch)
    rows: list[tuple[float, float, float]] = []
    with closing(Reader(dataset, seed=0, slice=part, prefetch_mib=0).batches(0)) as batches:
        while len(rows) < count:
            read = next(batches)
            for clip in read.video_bthwc[read.valid_b].astype(np.int16):
                change = np.abs(np.diff(clip, axis=0)).mean() if len(clip) > 1 else 0.0
                rows.append((clip.mean(), clip.std(), change))
    table = np.array(rows[:count])
    return dict(zip(("brightness", "contrast", "motion_per_frame"), table.T, strict=True))


def clip_bytes(dataset: Dataset, count: int) -> Floats:
    """Sizes of stored clips, from the indexes of shards spread over the dataset."""
    catalog = Catalog(dataset)
    shards = len(dataset.manifest.shards)
    per_shard = max(1, dataset.samples // shards)
    wanted = min(shards, -(-count // per_shard))
    chosen = sorted({n * shards // wanted for n in range(wanted)})
    return np.concatenate([catalog.index(n).clips[:, 1] for n in chosen]).astype(np.float64)


def describe(dataset: Dataset, *, clips: int) -> dict[str, Any]:
    """The figures, as plain JSON: every measured quantity as quantiles and a histogram."""
    manifest = dataset.manifest
    seconds = manifest.samples * manifest.clip.frames / manifest.clip.fps
    measured = measure_clips(dataset, clips) | {"clip_bytes": clip_bytes(dataset, clips)}
    report = _report(dataset)
    if report:
        durations = [video["seconds"] for video in report.get("videos", []) if video["seconds"]]
        if durations:
            measured["video_seconds"] = np.array(durations, dtype=np.float64)
    return {
        "location": dataset.store.location,
        "version": dataset.version,
        "clips": manifest.samples,
        "clip": list(manifest.clip.shape),
        "encoding": f"{manifest.clip.encoding} {manifest.clip.detail}".strip(),
        "hours": seconds / 3600,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "counts": {k: n for k, n in manifest.counts.items() if not k.startswith(OF_CONTENT)},
        "classes": {name: manifest.counts[LABEL + name] for name in dataset.labels},
        "attributes": {
            name: {value: manifest.counts[f"{ATTRIBUTE}{name} {value}"] for value in values}
            for name, values in dataset.attributes.items()
        },
        "words": {word: manifest.counts[WORD + word] for word in dataset.words},
        "measured": {name: _distribution(values) for name, values in measured.items()},
    }


def _report(dataset: Dataset) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(dataset.store.read("report.json"))
    except FileNotFoundError:
        return {}
    return report


def _distribution(values: Floats) -> dict[str, Any]:
    heights, edges = np.histogram(values, bins=_BINS)
    quantiles = np.quantile(values, [0, 0.05, 0.5, 0.95, 1])
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "quantiles_0_5_50_95_100": quantiles.tolist(),
        "histogram": heights.tolist(),
        "edges": edges.tolist(),
    }


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    shape = "x".join(map(str, figures["clip"]))
    gib = figures["bytes"] / 2**30
    print(f"{figures['location']}  version {figures['version'][:12]}")
    print(
        f"{figures['clips']:,} clips of {shape}, {figures['encoding']}: "
        f"{figures['hours']:.3g} hours in {figures['shards']} shards, {gib:.3g} GiB"
    )
    for name, count in sorted(figures["counts"].items()):
        print(f"  {name:<32}{count:>14,}")
    classes = figures["classes"]
    if classes:
        print(f"\nclips of each of {len(classes)} classes")
        _bars(list(classes.values()), [f"{name:<32}" for name in classes])
    for name, found in figures["attributes"].items():
        if len(found) <= _MOST_BARS:
            print(f"\nclips of each {name}")
            _bars(list(found.values()), [f"{value:<32}" for value in found])
        else:
            print(f"\n{len(found):,} different {name}, of {min(found.values())} clips or more")
    if words := figures["words"]:
        often = sorted(words, key=lambda word: (-words[word], word))[:_BINS]
        print(f"\n{len(words):,} words in captions; most often {', '.join(often)}")
    for name, values in figures["measured"].items():
        low, p5, median, p95, high = values["quantiles_0_5_50_95_100"]
        print(
            f"\n{name}: {values['n']:,} measured, {low:.4g} to {high:.4g}, median {median:.4g}, "
            f"90 % within {p5:.4g} and {p95:.4g}"
        )
        _bars(values["histogram"], [f"{edge:>12,.4g}" for edge in values["edges"][:-1]])


def _bars(heights: list[int], names: list[str]) -> None:
    most = max(heights)
    for height, name in zip(heights, names, strict=True):
        print(f"  {name} {'#' * round(_BAR * height / most)} {height}")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m shards.stats", description=__doc__)
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--clips", type=int, default=512, help="to measure (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args(arguments)
    try:
        figures = describe(open_dataset(given.dataset), clips=max(1, given.clips))
    except DataFault as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
