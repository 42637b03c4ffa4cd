"""Which sample stands at position p: a formula, so that resuming needs one integer.

Order version 1, complete enough to be written again from this text:

A *run position* P counts the samples a run has consumed. With N samples in the manifest it means
epoch e = P // N, position p = P % N. Step t with global batch G takes the run positions
[t*G, (t+1)*G). A batch may therefore straddle two epochs, and that is the point: every epoch is
consumed whole, nothing is dropped or padded at its end, nothing is repeated inside it, and the map
from steps to samples does not know how many workers there are. (Dropping the tail would lose up to
G-1 samples of every epoch; padding repeats some; a short batch changes the noise of one step and
the meaning of "step" with it.)

Inside epoch e, with `key(label)` = the 64 bytes of SHAKE-256 over the ASCII text
"shards order 1\\n<version>\\n<seed>\\n<epoch>\\n<label>" read as eight little-endian uint64:

1. The S shards of the manifest are permuted: place i holds shard `permute(i, S, key("shards"))`.
2. The permuted shards are cut into blocks of B consecutive ones (the last may be shorter; B = S is
   a global shuffle). Block b covers the positions of its shards' samples, in that sequence.
3. With n samples in block b and q = p minus the block's first position, take
   r = `permute(q, n, key("block <b>"))`: the sample is the r-th of the block, counting through its
   permuted shards and, inside a shard, in the tar's order.

`permute(v, n, key)` is a Feistel network over Z_a x Z_b (Black and Rogaway, "Ciphers with arbitrary
finite domains", 2002), with a = ceil(sqrt(n)), b = ceil(n / a): v = x*b + y; eight rounds
alternate x += f(y, key[j]) mod a (j even) and y += f(x, key[j]) mod b (j odd); a result >= n is
permuted again until it is below n. f(u, k) is the finaliser of splitmix64 over u + k, mod 2^64.

Cost: O(1) per position and no array over the samples; over the shards, one permutation and one
prefix sum per epoch, of which the last two epochs' are kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ORDER_VERSION = 1
_ROUNDS = 8

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]


class Order:
    """The order of one dataset under one seed.

    sizes: samples of each shard, in the manifest's sequence.
    version: the manifest's hash. seed: any integer.
    block_shards: shards shuffled together, at least 1; None for all of them (a global shuffle).
    Raises ValueError for a dataset without samples or a bad block_shards.
    """

    def __init__(
        self, sizes: Sequence[int], *, version: str, seed: int, block_shards: int | None = None
    ) -> None:
        if block_shards is not None and block_shards < 1:
            raise ValueError(f"block_shards: {block_shards} must be at least 1, or None for all")
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.samples = int(self.sizes.sum())
        if self.samples == 0:
            raise ValueError("the dataset has no samples, so it has no order")
        self.version = version
        self.seed = seed
        self.block_shards = min(block_shards or len(self.sizes), len(self.sizes))
        self._epoch = lru_cache(maxsize=2)(self._lay_out)

    def locate(self, run_positions: Int64) -> tuple[Int64, Int64]:
        """(shard, sample in the shard) at each run position (>= 0): two int64 arrays, same shape.

        Positions may be in any sequence and belong to any epochs.
        """
        positions = np.asarray(run_positions, dtype=np.int64)
        shard = np.empty_like(positions)
        sample = np.empty_like(positions)
        epochs, inside = np.divmod(positions, self.samples)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            shard[here], sample[here] = self._locate_in_epoch(int(epoch), inside[here])
        return shard, sample

    def _locate_in_epoch(self, epoch: int, positions: Int64) -> tuple[Int64, Int64]:
        shards, starts = self._epoch(epoch)
        place = np.searchsorted(starts, positions, side="right") - 1
        blocks = place // self.block_shards
        target = np.empty_like(positions)
        for block in np.unique(blocks):
            here = blocks == block
            first = starts[block * self.block_shards]
            last = starts[min((block + 1) * self.block_shards, len(shards))]
            key = self._key(epoch, f"block {block}")
            target[here] = first + permute(positions[here] - first, int(last - first), key)
        place = np.searchsorted(starts, target, side="right") - 1
        return shards[place], target - starts[place]

    def _lay_out(self, epoch: int) -> tuple[Int64, Int64]:
        """The epoch's permuted shards (S,), and where each begins, with the end (S + 1,)."""
        count = len(self.sizes)
        shards = permute(np.arange(count, dtype=np.int64), count, self._key(epoch, "shards"))
        starts = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(self.sizes[shards], out=starts[1:])
        return shards, starts

    def _key(self, epoch: int, label: str) -> UInt64:
        text = f"shards order {ORDER_VERSION}\n{self.version}\n{self.seed}\n{epoch}\n{label}"
        digest = hashlib.shake_256(text.encode("ascii")).digest(8 * _ROUNDS)
        return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def permute(values: Int64, n: int, key: UInt64) -> Int64:
    """The images of `values` (each in [0, n)) under the permutation of [0, n) that `key` names.

    key: eight uint64. Vectorised, O(1) per value.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    current = values.astype(np.uint64)
    pending = np.arange(current.size)
    flat = current.reshape(-1)
    while pending.size:
        image = _feistel(flat[pending], a, b, key)
        flat[pending] = image
        pending = pending[image >= n]
    return current.astype(np.int64)


def _feistel(values: UInt64, a: int, b: int, key: UInt64) -> UInt64:
    x, y = np.divmod(values, np.uint64(b))
    for j in range(0, _ROUNDS, 2):
        x = (x + _mix(y + key[j]) % np.uint64(a)) % np.uint64(a)
        y = (y + _mix(x + key[j + 1]) % np.uint64(b)) % np.uint64(b)
    result: UInt64 = x * np.uint64(b) + y
    return result


def _mix(values: UInt64) -> UInt64:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit words."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
