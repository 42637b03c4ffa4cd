"""What 14 million samples cost before the first batch: time, memory, resume from the middle.

The 7,032 shards of 2,000 (small) clips are all there, as hard links to one. Run:

    python bench/order_scale.py
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from peers.synthetic import answer, packed, seal

from shards.manifest import ClipFormat
from shards.order import Order
from shards.read import Reader, Slice, open_dataset

SHARDS, PER_SHARD, SEED, BATCH = 7_032, 2_000, 0, 64
RESULT = Path(__file__).parent / "results" / "order_scale.json"
CLIP = ClipFormat(frames=1, height=8, width=8, channels=3, fps=25.0, encoding="u8")


def make(root: Path) -> None:
    """One real shard under 7,032 names: hard links, so every shard can be read."""
    (root / "shards").mkdir(parents=True)
    rng = np.random.default_rng(0)
    members = (
        (f"{n:06d}.u8", rng.integers(0, 256, CLIP.shape, dtype=np.uint8).tobytes())
        for n in range(PER_SHARD)
    )
    one, tar, index = packed("000000", members)
    (root / "one.tar").write_bytes(tar)
    (root / "one.idx").write_bytes(index)
    shards = [dataclasses.replace(one, name=f"{number:06d}") for number in range(SHARDS)]
    for shard in shards:
        (root / shard.tar).hardlink_to(root / "one.tar")
        (root / shard.index).hardlink_to(root / "one.idx")
    seal(root, CLIP, shards)


def rss_mib() -> float:
    """The most memory this process has held so far.

    Not getrusage: its figure outlives exec, so a child would begin with its parent's peak.
    """
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def first_batch(root: str, block_shards: int | None, step: int) -> dict[str, float]:
    """Seconds to the first batch at `step`, and the memory that took beyond the imports."""
    before = rss_mib()
    begin = time.perf_counter()
    part = Slice(rank=0, world_size=1, global_batch=BATCH)
    dataset = open_dataset(root)
    opened = time.perf_counter() - begin
    reader = Reader(dataset, seed=SEED, slice=part, block_shards=block_shards)
    with closing(reader.batches(step)) as batches:
        next(batches)
        return {
            "open_s": opened,
            "first_batch_s": time.perf_counter() - begin,
            "mib_beyond_imports": rss_mib() - before,
        }


def main() -> None:
    """Each case in a process of its own, so that memory is its own."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "set")
        for block in (32, None):
            for step in (0, SHARDS * PER_SHARD // BATCH // 2):
                name = f"block_shards={block} step={step}"
                command = [sys.executable, __file__, f"{folder}/set", str(block), str(step)]
                figures = answer(command)
                if isinstance(figures, str):
                    raise RuntimeError(f"{name}: {figures}")
                rows[name] = figures
                print(name, {key: round(value, 3) for key, value in figures.items()})
    order = Order([PER_SHARD] * SHARDS, version="bench", seed=SEED, block_shards=32)
    begin = time.perf_counter()
    order.locate(np.arange(1_000_000))
    rows["order"] = {"us_per_index": time.perf_counter() - begin}
    print("order", rows["order"])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        blocks = None if sys.argv[2] == "None" else int(sys.argv[2])
        print(json.dumps(first_batch(sys.argv[1], blocks, int(sys.argv[3]))))
    else:
        main()
