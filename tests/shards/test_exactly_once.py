"""Any sequence of world sizes, killed anywhere: each sample once an epoch, in the order's order."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.order import Order
from shards.read import Reader, Slice, check_state, open_dataset

SEED = 11
GLOBAL_BATCH = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    write = request.getfixturevalue("write_dataset")
    root: Path = tmp_path_factory.mktemp("once") / "noise"
    return write(root, [50, 7, 90, 33], shape=(1, 2, 2, 3))


def run(made: Any, state: dict[str, Any], world: int, steps: int, block: int) -> list[list[str]]:
    """The keys of each of `steps` global steps from `state`, as `world` ranks read them."""
    dataset = open_dataset(made.location)
    position = check_state(state, dataset, seed=SEED, block_shards=block)
    assert position % GLOBAL_BATCH == 0
    with ExitStack() as stack:
        ranks = []
        for rank in range(world):
            part = Slice(rank=rank, world_size=world, global_batch=GLOBAL_BATCH)
            reader = Reader(
                dataset, seed=SEED, slice=part, block_shards=block, threads=1, prefetch_mib=0
            )
            batches = reader.batches(position // GLOBAL_BATCH)
            ranks.append(stack.enter_context(closing(batches)))
        return [[key for rank in ranks for key in next(rank).keys] for _ in range(steps)]


segments = st.lists(
    st.tuples(
        st.integers(1, 64),  # world size
        st.integers(1, 6),  # steps until the kill
        st.floats(0, 1),  # share of them that a checkpoint had committed
    ),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(segments=segments, block=st.integers(1, 4))
def test_reader_any_worlds_and_kills_consume_the_order_exactly(
    made: Any, segments: list[tuple[int, int, float]], block: int
) -> None:
    part = Slice(rank=0, world_size=1, global_batch=GLOBAL_BATCH)
    reader = Reader(open_dataset(made.location), seed=SEED, slice=part, block_shards=block)
    step = 0
    committed: list[str] = []
    for world, steps, share in segments:
        state = json.loads(json.dumps(reader.state(step)))  # as a checkpoint keeps it
        keep = round(steps * share)
        for keys in run(made, state, world, steps, block)[:keep]:
            committed += keys
        step += keep
    sizes = [shard.samples for shard in made.manifest.shards]
    order = Order(sizes, version=made.manifest.version, seed=SEED, block_shards=block)
    shard, sample = order.locate(np.arange(len(committed)))
    assert committed == [made.keys[s][i] for s, i in zip(shard, sample, strict=True)]
    n = sum(sizes)
    for epoch in range(len(committed) // n):
        assert sorted(committed[epoch * n : (epoch + 1) * n]) == sorted(made.clips)
