"""The reader on local files: contents, order under any world size, faults."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from shards.manifest import MANIFEST
from shards.order import Order
from shards.read import Batch, DataFault, Dataset, Reader, Slice, check_state, open_dataset


def take(reader: Reader, first: int, count: int) -> list[Batch]:
    batches = reader.batches(first)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def make_reader(
    made: Any, *, rank: int = 0, world: int = 1, batch: int = 4, **options: Any
) -> Reader:
    options = {"seed": 7, "threads": 2, **options}
    part = Slice(rank=rank, world_size=world, global_batch=batch)
    return Reader(open_dataset(made.location), slice=part, **options)


def expected_keys(made: Any, count: int, *, seed: int = 7, block: int | None = None) -> list[str]:
    sizes = [shard.samples for shard in made.manifest.shards]
    order = Order(sizes, version=made.manifest.version, seed=seed, block_shards=block)
    shard, sample = order.locate(np.arange(count))
    return [made.keys[s][i] for s, i in zip(shard, sample, strict=True)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("encoding", ["u8", "jpg"])
def test_reader_clips_are_those_that_were_written(
    make_dataset: Any, encoding: str, channels: int
) -> None:
    made = make_dataset([5, 7], encoding=encoding, shape=(4, 8, 16, channels))
    for batch in take(make_reader(made, with_json=True), 0, 3):
        assert batch.video_bthwc.shape == (4, 4, 8, 16, channels)
        assert batch.video_bthwc.flags.c_contiguous
        assert batch.valid_b.all()
        assert batch.json is not None
        for clip, key, facts in zip(batch.video_bthwc, batch.keys, batch.json, strict=True):
            assert facts["key"] == key
            want = made.clips[key]
            if encoding == "jpg":
                strip = want.reshape(32, 16, channels)
                colours = "RGB" if channels == 3 else "GRAY"
                data = simplejpeg.encode_jpeg(strip, 95, colours, "444")
                want = simplejpeg.decode_jpeg(data, colours).reshape(want.shape)
            assert np.array_equal(clip, want)


def test_reader_two_epochs_follow_the_order_and_straddle_the_boundary(make_dataset: Any) -> None:
    made = make_dataset([5, 1, 7])
    batches = take(make_reader(made, batch=4, block_shards=2), 0, 7)
    keys = [key for batch in batches for key in batch.keys]
    assert keys[:26] == expected_keys(made, 26, block=2)
    assert sorted(keys[:13]) == sorted(keys[13:26]) == sorted(made.clips)
    assert [batch.step for batch in batches] == list(range(7))
    assert np.concatenate([batch.positions for batch in batches]).tolist() == list(range(28))


@pytest.mark.parametrize("world", [2, 3, 5])
def test_reader_ranks_together_equal_one_rank(make_dataset: Any, world: int) -> None:
    made = make_dataset([9, 4, 6])
    parts = [take(make_reader(made, rank=r, world=world, batch=5), 2, 4) for r in range(world)]
    for step in range(4):
        keys = [key for rank in range(world) for key in parts[rank][step].keys]
        assert keys == expected_keys(made, 30)[10 + 5 * step : 15 + 5 * step]
    sizes = {len(part[0].keys) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_reader_threads_and_prefetch_do_not_enter_the_batches(make_dataset: Any) -> None:
    made = make_dataset([20, 20], encoding="jpg")
    one = take(make_reader(made, batch=16, threads=1, prefetch_mib=0), 0, 5)
    many = take(make_reader(made, batch=16, threads=4), 0, 5)
    for a, b in zip(one, many, strict=True):
        assert a.keys == b.keys
        assert np.array_equal(a.video_bthwc, b.video_bthwc)


def test_reader_batch_beyond_prefetch_mib_is_still_read_while_the_one_before_is_used(
    make_dataset: Any,
) -> None:
    made = make_dataset([8], shape=(8, 128, 128, 3))  # a batch is 1.5 MiB
    bad = expected_keys(made, 8)[5]
    flip(made.root / "shards/000000.tar", made.clips[bad].tobytes())
    reader = make_reader(made, prefetch_mib=1)
    batches = reader.batches(0)
    next(batches)
    deadline = time.monotonic() + 20
    while bad not in reader.quarantined:  # it is in the second batch, which nobody has asked for
        assert time.monotonic() < deadline, "the second batch is not read ahead"
        time.sleep(0.005)
    batches.close()


def test_reader_closing_the_iterator_ends_its_threads(make_dataset: Any) -> None:
    made = make_dataset([20])
    before = set(threading.enumerate())
    batches = make_reader(made).batches(0)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert not set(threading.enumerate()) - before


def test_reader_batches_that_are_kept_are_never_written_again(make_dataset: Any) -> None:
    """Memory is used again only once nobody holds the batch, a view of it, or a tensor on it."""
    made = make_dataset([40])
    batches = make_reader(made, prefetch_mib=0).batches(0)
    held = []
    addresses = set()
    for n, batch in enumerate(itertools.islice(batches, 60)):
        addresses.add(batch.video_bthwc.ctypes.data)
        if n % 3 == 0:
            held.append((batch.keys[1], batch.video_bthwc[1, :, 2:]))
        elif n % 3 == 1:
            held.append((batch.keys[0], torch.from_numpy(batch.video_bthwc)[0, :, 2:]))
    batches.close()
    assert len(addresses) < 60
    for key, view in held:
        assert np.array_equal(np.asarray(view), made.clips[key][:, 2:])


def flip(path: Path, data: bytes) -> None:
    """Inverts the first bit of the only place where `data` stands in the file."""
    content = path.read_bytes()
    assert content.count(data) == 1
    at = content.index(data)
    path.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])


def test_reader_flipped_bit_masks_that_sample_alone(make_dataset: Any) -> None:
    made = make_dataset([6, 6])
    bad = "s001-0002"
    flip(made.root / "shards/000001.tar", made.clips[bad].tobytes())
    reader = make_reader(made)
    batches = take(reader, 0, 3)
    assert [key for batch in batches for key in batch.keys] == expected_keys(made, 12)
    for batch in batches:
        for clip, key, valid in zip(batch.video_bthwc, batch.keys, batch.valid_b, strict=True):
            assert valid == (key != bad)
            assert np.array_equal(clip, made.clips[key] if valid else np.zeros_like(clip))
    assert list(reader.quarantined) == [bad]
    assert "crc32c" in reader.quarantined[bad]


def test_reader_flipped_bit_beyond_tolerance_stops_with_keys_and_reasons(make_dataset: Any) -> None:
    made = make_dataset([6, 6])
    flip(made.root / "shards/000001.tar", made.clips["s001-0002"].tobytes())
    with pytest.raises(DataFault, match=r"s001-0002: the data's crc32c"):
        take(make_reader(made, tolerance=0), 0, 3)


def test_reader_tar_cut_after_opening_is_found_and_reported(make_dataset: Any) -> None:
    made = make_dataset([8])
    reader = make_reader(made, tolerance=1)
    tar = made.root / "shards/000000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    batches = take(reader, 0, 2)
    valid = {
        key: bool(ok)
        for batch in batches
        for key, ok in zip(batch.keys, batch.valid_b, strict=True)
    }
    assert sorted(valid) == sorted(made.clips)
    assert 0 < sum(valid.values()) < 8
    assert {key for key, ok in valid.items() if not ok} == set(reader.quarantined)
    assert any("tar ends" in reason for reason in reader.quarantined.values())


@pytest.mark.parametrize("gone", ["000001.tar", "000001.idx"])
def test_reader_file_lost_after_opening_masks_its_samples(make_dataset: Any, gone: str) -> None:
    made = make_dataset([4, 4])
    reader = make_reader(made, tolerance=1)
    (made.root / "shards" / gone).unlink()
    batches = take(reader, 0, 2)
    masked = sum(int((~batch.valid_b).sum()) for batch in batches)
    assert masked == 4 == len(reader.quarantined)
    good = [k for b in batches for k, ok in zip(b.keys, b.valid_b, strict=True) if ok]
    want = expected_keys(made, 8)
    assert good == [key for key in want if key.startswith("s000")]


def test_reader_u8_of_another_size_is_masked_not_fatal(make_dataset: Any) -> None:
    """A member whose index is right but which is no clip of this dataset's format."""
    made = make_dataset([4], shape=(2, 8, 8, 3))
    text = (made.root / MANIFEST).read_text().replace('"frames":2', '"frames":3')
    (made.root / MANIFEST).write_text(text)
    reader = make_reader(made, tolerance=1)
    assert not take(reader, 0, 1)[0].valid_b.any()
    assert all("raw clip" in reason for reason in reader.quarantined.values())


def test_open_dataset_missing_names_the_place_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*nowhere.*ingest"):
        open_dataset(str(tmp_path / "nowhere"))


def test_open_dataset_empty_says_so(make_dataset: Any) -> None:
    with pytest.raises(ValueError, match="is empty"):
        open_dataset(make_dataset([]).location)


def test_open_dataset_missing_and_cut_shards_are_named(make_dataset: Any) -> None:
    made = make_dataset([3, 3, 3])
    (made.root / "shards/000000.tar").unlink()
    index = made.root / "shards/000002.idx"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"000000.tar is missing, shards/000002.idx has \d+ bytes"):
        open_dataset(made.location)


def test_reader_batch_larger_than_the_dataset_names_both_numbers(make_dataset: Any) -> None:
    made = make_dataset([3, 4])
    with pytest.raises(ValueError, match=r"fewer clips than one global batch: .* has 7, .* is 8"):
        make_reader(made, batch=8)


def test_slice_more_ranks_than_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="world_size: 5"):
        Slice(rank=0, world_size=5, global_batch=4)


def test_slice_rank_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="rank: 2"):
        Slice(rank=2, world_size=2, global_batch=4)


def test_state_round_trip_gives_the_position(make_dataset: Any) -> None:
    made = make_dataset([3, 4])
    reader = make_reader(made, batch=4, block_shards=2)
    dataset = open_dataset(made.location)
    assert check_state(reader.state(6), dataset, seed=7, block_shards=2) == 24


@pytest.mark.parametrize("field", ["order_version", "dataset_version", "seed", "block_shards"])
def test_state_of_another_order_is_refused_by_name(make_dataset: Any, field: str) -> None:
    made = make_dataset([3, 4])
    dataset: Dataset = open_dataset(made.location)
    state = make_reader(made, batch=4).state(6) | {field: "another"}
    with pytest.raises(ValueError, match=rf"^{field}: the saved state has 'another'"):
        check_state(state, dataset, seed=7)
