"""How fast a dataset can be read here: `python -m shards.bench DATASET [--batch 16]`.

Reads batches as a training run would, without training, and prints clips per second, CPU time per
clip (all threads of the process), and how long the first batch and the slowest ones took.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from typing import Any

import numpy as np

from shards.cache import Cache
from shards.quarantine import DataFault
from shards.read import Reader, Slice, open_dataset


def measure(reader: Reader, *, seconds: float) -> dict[str, Any]:
    """Reads for so long; the figures by name. CPU seconds are the whole process's."""
    waits = []
    clips = 0
    begin = time.perf_counter()
    with closing(reader.batches(0)) as batches:
        next(batches)
        first_s = time.perf_counter() - begin
        begin, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < seconds:
            before = time.perf_counter()
            clips += len(next(batches).keys)
            waits.append(time.perf_counter() - before)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    p50, p99 = np.percentile(waits, [50, 99])
    return {
        "clips_per_s": clips / wall,
        "cpu_s_per_clip": cpu / clips,
        "first_batch_s": first_s,
        "batch_p50_s": float(p50),
        "batch_p99_s": float(p99),
        "clips": clips,
        "quarantined": len(reader.quarantined),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = _parser().parse_args(arguments)
    try:
        dataset = open_dataset(given.dataset)
        cache = None
        if given.cache:
            cache = Cache(root=given.cache, limit_gib=given.cache_gib, decode=given.decode)
        reader = Reader(
            dataset,
            seed=0,
            slice=Slice(rank=0, world_size=1, global_batch=given.batch),
            block_shards=given.block_shards,
            threads=given.threads,
            cache=cache,
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        figures = measure(reader, seconds=given.seconds)
    except (DataFault, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(figures))
        return 0
    megabytes = figures["clips_per_s"] * np.prod(dataset.manifest.clip.shape) / 1e6
    print(
        f"{figures['clips_per_s']:,.0f} clips/s ({megabytes:,.0f} MB/s of pixels), "
        f"{figures['cpu_s_per_clip'] * 1e3:.3f} ms of CPU per clip; first batch after "
        f"{figures['first_batch_s']:.3f} s; a batch takes {figures['batch_p50_s'] * 1e3:.1f} ms "
        f"(median), {figures['batch_p99_s'] * 1e3:.1f} ms (99 %)"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shards.bench", description=__doc__)
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--batch", type=int, default=16, help="clips (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, help="that fetch and decode (default: as a run)")
    parser.add_argument("--block-shards", type=int, help="shards mixed at a time (default: all)")
    parser.add_argument("--cache", metavar="FOLDER", help="keep shards there")
    parser.add_argument("--cache-gib", type=float, default=10.0, help="(default %(default)s)")
    parser.add_argument("--decode", action="store_true", help="keep pixels in the cache")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
