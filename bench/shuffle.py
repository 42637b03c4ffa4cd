"""How well the order mixes: clips of one video in one batch, against an ideal shuffle.

    python bench/shuffle.py

A manifest of realistic shape, no pixels: videos of 1 to 40 clips (a 9-second video gives 7), dealt
over the shards of their group in the order of their keys' sha256, as `shards.pack` does. Counted is
the share of a batch's clips with a sibling in the same batch: mean over the batches of an epoch.
"Ideal" is a uniform shuffle of all the clips. "consecutive shards" has every video's clips in one
place, as a writer without dealing would leave them.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.order import Order

RESULT = Path(__file__).parent / "results" / "shuffle.json"
SHARDS, PER_SHARD, GROUP, BATCH = 512, 1_000, 64, 64
BLOCKS = (1, 8, 32, None)
Int64 = NDArray[np.int64]


def videos(rng: np.random.Generator, clips: int) -> Int64:
    """The video of each clip, in the order in which sources are cut: (clips,)."""
    lengths = rng.geometric(1 / 7, clips).clip(1, 40)
    return np.repeat(np.arange(clips, dtype=np.int64), lengths)[:clips]


def dealt(video: Int64) -> Int64:
    """The video of each sample once packed: every group's clips in the order of a hash."""
    keys = [f"{v:08x}-{n}" for n, v in enumerate(video.tolist())]
    hashes = [hashlib.sha256(key.encode()).digest() for key in keys]
    placed = []
    for first in range(0, len(video), GROUP * PER_SHARD):
        group = range(first, min(first + GROUP * PER_SHARD, len(video)))
        placed += sorted(group, key=hashes.__getitem__)
    return video[placed]


def siblings(video_of: Int64) -> float:
    """The share of clips that meet one of their video in their batch."""
    whole = video_of[: len(video_of) // BATCH * BATCH].reshape(-1, BATCH)
    ordered = np.sort(whole, axis=1)
    same = ordered[:, 1:] == ordered[:, :-1]
    edge = np.zeros((len(whole), 1), dtype=np.bool_)
    return float((np.hstack([same, edge]) | np.hstack([edge, same])).mean())


def main() -> None:
    """Counts for every size of block, prints a table, writes it to bench/results."""
    rng = np.random.default_rng(0)
    cut = videos(rng, SHARDS * PER_SHARD)
    ideal = float(np.mean([siblings(rng.permutation(cut)) for _ in range(3)]))
    table: dict[str, object] = {
        "clips": len(cut),
        "videos": len(np.unique(cut)),
        "shards": SHARDS,
        "shards per group": GROUP,
        "batch": BATCH,
        "ideal": ideal,
    }
    print(f"{len(cut):,} clips in {SHARDS} shards, batches of {BATCH}; ideal {ideal:.5%}")
    print(f"{'block_shards':<14}{'dealt over shards':>19}{'ratio':>8}{'consecutive shards':>21}")
    packed = dealt(cut)
    for block in BLOCKS:
        order = Order([PER_SHARD] * SHARDS, version="bench", seed=0, block_shards=block)
        begin = time.perf_counter()
        shard, sample = order.locate(np.arange(len(cut)))
        seconds = time.perf_counter() - begin
        found = {
            name: siblings(where[shard * PER_SHARD + sample])
            for name, where in (("dealt", packed), ("consecutive", cut))
        }
        table[f"block_shards {block}"] = {**found, "us_per_index": seconds / len(cut) * 1e6}
        print(
            f"{block or 'None':<14}{found['dealt']:>19.5%}{found['dealt'] / ideal:>8.2f}"
            f"{found['consecutive']:>21.5%}",
            flush=True,
        )
    RESULT.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
