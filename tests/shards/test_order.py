"""The order against a plain-Python reference written from the docstring alone."""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.order import ORDER_VERSION, Order, permute

WORD = 2**64


def reference_key(version: str, seed: int, epoch: int, label: str) -> tuple[int, ...]:
    text = f"shards order 1\n{version}\n{seed}\n{epoch}\n{label}"
    return struct.unpack("<8Q", hashlib.shake_256(text.encode()).digest(64))


def reference_permute(value: int, n: int, key: tuple[int, ...]) -> int:
    a = math.ceil(math.sqrt(n))
    b = math.ceil(n / a)

    def mix(word: int) -> int:
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % WORD
        word = (word ^ word >> 27) * 0x94D049BB133111EB % WORD
        return word ^ word >> 31

    while True:
        x, y = divmod(value, b)
        for j, k in enumerate(key):
            if j % 2 == 0:
                x = (x + mix((y + k) % WORD)) % a
            else:
                y = (y + mix((x + k) % WORD)) % b
        value = x * b + y
        if value < n:
            return value


def reference_locate(
    sizes: list[int], version: str, seed: int, block: int, position: int
) -> tuple[int, int]:
    epoch, inside = divmod(position, sum(sizes))
    key = reference_key(version, seed, epoch, "shards")
    shards = [reference_permute(i, len(sizes), key) for i in range(len(sizes))]
    first = 0
    for number in range(math.ceil(len(sizes) / block)):
        members = shards[number * block : (number + 1) * block]
        total = sum(sizes[s] for s in members)
        if inside < first + total:
            key = reference_key(version, seed, epoch, f"block {number}")
            r = reference_permute(inside - first, total, key)
            for shard in members:
                if r < sizes[shard]:
                    return shard, r
                r -= sizes[shard]
        first += total
    raise AssertionError("position beyond the epoch")


def pairs(order: Order, first: int, last: int) -> list[tuple[int, int]]:
    shard, sample = order.locate(np.arange(first, last))
    return list(zip(shard.tolist(), sample.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    block=st.integers(1, 14),
    seed=st.integers(-5, 10**12),
)
def test_order_any_dataset_equals_the_reference_and_visits_each_sample_once(
    sizes: list[int], block: int, seed: int
) -> None:
    order = Order(sizes, version="v", seed=seed, block_shards=block)
    n = sum(sizes)
    got = pairs(order, 0, 2 * n)
    every = [(shard, i) for shard, size in enumerate(sizes) for i in range(size)]
    assert sorted(got[:n]) == every
    assert sorted(got[n:]) == every
    clamped = min(block, len(sizes))
    assert got == [reference_locate(sizes, "v", seed, clamped, p) for p in range(2 * n)]


def test_order_version_1_is_pinned() -> None:
    """These values are a promise to every saved state: change them and ORDER_VERSION together."""
    assert ORDER_VERSION == 1
    version = "ab" * 32
    order = Order([5, 3, 0, 7], version=version, seed=17, block_shards=2)
    assert pairs(order, 0, 18) == PINNED_BLOCKS
    order = Order([2000] * 7000, version=version, seed=17)
    assert pairs(order, 13_999_996, 14_000_004) == PINNED_LARGE


PINNED_BLOCKS = [
    (3, 5),
    (3, 0),
    (3, 6),
    (3, 3),
    (3, 1),
    (3, 4),
    (3, 2),
    (1, 0),
    (0, 1),
    (0, 2),
    (0, 4),
    (1, 1),
    (0, 3),
    (1, 2),
    (0, 0),
    (1, 0),
    (1, 1),
    (1, 2),
]
PINNED_LARGE = [
    (3000, 1327),
    (4011, 469),
    (894, 1287),
    (6042, 1430),
    (5387, 856),
    (118, 1556),
    (6662, 1077),
    (5097, 498),
]


def test_order_without_block_shards_equals_one_block_of_all() -> None:
    sizes = [4, 9, 2, 6]
    whole = Order(sizes, version="v", seed=1)
    assert pairs(whole, 0, 42) == pairs(Order(sizes, version="v", seed=1, block_shards=4), 0, 42)
    assert pairs(whole, 0, 42) == pairs(Order(sizes, version="v", seed=1, block_shards=99), 0, 42)


def test_order_changes_with_seed_epoch_and_version() -> None:
    sizes = [50] * 4
    base = pairs(Order(sizes, version="v", seed=1), 0, 200)
    assert base != pairs(Order(sizes, version="v", seed=2), 0, 200)
    assert base != pairs(Order(sizes, version="w", seed=1), 0, 200)
    assert base != pairs(Order(sizes, version="v", seed=1), 200, 400)


def test_order_positions_in_any_sequence_give_the_same_samples() -> None:
    order = Order([30, 20, 50], version="v", seed=3, block_shards=1)
    positions = np.random.default_rng(0).permutation(500).reshape(5, 100)
    shard, sample = order.locate(positions)
    straight_shard, straight_sample = order.locate(np.arange(500))
    assert np.array_equal(shard, straight_shard[positions])
    assert np.array_equal(sample, straight_sample[positions])


def test_order_blocks_hold_only_their_shards() -> None:
    order = Order([100] * 12, version="v", seed=0, block_shards=3)
    shard, _ = order.locate(np.arange(1200))
    for block in shard.reshape(4, 300):
        assert len(set(block.tolist())) == 3


def test_permute_large_domain_is_a_bijection() -> None:
    n = 1_000_003
    image = permute(np.arange(n), n, np.arange(8, dtype=np.uint64))
    assert np.array_equal(np.sort(image), np.arange(n))


@pytest.mark.parametrize("n", [3, 4])
def test_permute_small_domain_reaches_every_permutation_evenly(n: int) -> None:
    rng = np.random.default_rng(5)
    draws = 4000
    counts = Counter(
        tuple(permute(np.arange(n), n, rng.integers(0, WORD, 8, dtype=np.uint64)).tolist())
        for _ in range(draws)
    )
    expected = draws / math.factorial(n)
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert len(counts) == math.factorial(n)
    assert chi2 < 60, counts  # 23 degrees of freedom: 60 has p < 1e-4


def test_permute_neighbours_land_like_random_pairs() -> None:
    """The mean distance of two random places among n is n / 3; neighbours must look like that."""
    n = 100_000
    image = permute(np.arange(n), n, np.arange(1, 9, dtype=np.uint64))
    assert np.abs(np.diff(image)).mean() == pytest.approx(n / 3, rel=0.02)


def test_order_of_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Order([0, 0], version="v", seed=0)


def test_order_block_of_no_shards_is_refused() -> None:
    with pytest.raises(ValueError, match="block_shards: 0"):
        Order([1], version="v", seed=0, block_shards=0)
