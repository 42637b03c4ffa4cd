"""The node's cache: same batches with and without, whatever happens to its folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from shards.cache import Cache, Folder
from shards.read import Batch, Reader, Slice, open_dataset

PART = Slice(rank=0, world_size=1, global_batch=5)
GIB = 2**30


def content(batches: Iterator[Batch], count: int) -> list[Any]:
    return [(b.keys, b.video_bthwc.tobytes(), b.valid_b.all()) for b in islice(batches, count)]


def plain(made: Any, count: int, **options: Any) -> list[Any]:
    reader = Reader(open_dataset(made.location), seed=3, slice=PART, **options)
    with closing(reader.batches(0)) as batches:
        return content(batches, count)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 20 s"
        time.sleep(0.005)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def bytes_in(root: Path) -> int:
    """What the folder holds at one moment: under its lock nothing grows, goes or is renamed."""
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        total = 0
        for path in root.iterdir():
            with suppress(FileNotFoundError):  # a writer that steps back takes its empty file along
                total += path.stat().st_size
        return total
    finally:
        os.close(folder)


def cached_reader(made: Any, root: Path, **options: Any) -> Reader:
    cache = Cache(root=str(root), limit_gib=1, **options)
    return Reader(open_dataset(made.location), seed=3, slice=PART, cache=cache, threads=2)


@pytest.mark.parametrize("encoding", ["jpg", "u8"])
@pytest.mark.parametrize("decode", [False, True])
def test_cache_filled_once_serves_everything_without_the_origin(
    make_dataset: Any, tmp_path: Path, encoding: str, decode: bool
) -> None:
    made = make_dataset([10, 15], encoding=encoding)
    want = plain(made, 10)
    root = tmp_path / "cache"
    reader = cached_reader(made, root, decode=decode)
    suffix = "u8" if decode else "tar"
    complete = sorted(f"{shard.sha256}.{suffix}" for shard in made.manifest.shards)
    with closing(reader.batches(0)) as batches:
        assert content(batches, 5) == want[:5]
        until(lambda: names(root) == complete)
    # No read from the origin is under way any more: what is read now comes from the cache.
    for tar in (made.root / "shards").glob("*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    with closing(cached_reader(made, root, decode=decode).batches(5)) as batches:
        assert content(batches, 5) == want[5:]
    with closing(cached_reader(made, root, decode=decode).batches(0)) as batches:
        assert content(batches, 10) == want
    assert names(root) == complete


def test_cache_below_its_limit_evicts_the_least_recently_used(
    make_dataset: Any, tmp_path: Path
) -> None:
    made = make_dataset([10] * 8)
    size = made.manifest.shards[0].bytes
    root = tmp_path / "cache"
    cache = Cache(root=str(root), limit_gib=3.5 * size / GIB)
    reader = Reader(
        open_dataset(made.location), seed=3, slice=PART, cache=cache, block_shards=2, prefetch_mib=0
    )
    want = plain(made, 48, block_shards=2)
    used = []
    with closing(reader.batches(0)) as batches:
        for expected in want:
            assert content(batches, 1) == [expected]
            used.append(bytes_in(root))
    assert 0 < max(used) <= 3.5 * size


def test_cache_smaller_than_what_is_mixed_is_refused(make_dataset: Any, tmp_path: Path) -> None:
    made = make_dataset([10] * 4)
    cache = Cache(root=str(tmp_path / "cache"), limit_gib=1e-6)
    with pytest.raises(ValueError, match=r"cache.limit_gib: 1e-06 is less than"):
        Reader(open_dataset(made.location), seed=0, slice=PART, cache=cache)


def test_cache_disk_full_reads_on_and_says_so_once(
    make_dataset: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = make_dataset([10, 15])

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    root = tmp_path / "cache"
    with closing(cached_reader(made, root).batches(0)) as batches:
        assert content(batches, 10) == plain(made, 10)
    assert names(root) == []
    assert 1 <= caplog.text.count("No space left on device") <= 2  # two may copy at once


def test_cache_bit_rot_is_read_from_the_origin_and_dropped(
    make_dataset: Any, tmp_path: Path
) -> None:
    made = make_dataset([25])
    root = tmp_path / "cache"
    kept = root / f"{made.manifest.shards[0].sha256}.tar"
    with closing(cached_reader(made, root).batches(0)) as batches:
        next(batches)
        until(kept.exists)
    kept.write_bytes(bytes(kept.stat().st_size))
    reader = cached_reader(made, root)
    with closing(reader.batches(0)) as batches:
        assert content(batches, 5) == plain(made, 5)
        assert reader.quarantined == {}
        until(lambda: kept.exists() and any(kept.read_bytes()))


def test_cache_of_pixels_that_was_cut_is_read_around(make_dataset: Any, tmp_path: Path) -> None:
    made = make_dataset([25], encoding="jpg")
    root = tmp_path / "cache"
    kept = root / f"{made.manifest.shards[0].sha256}.u8"
    with closing(cached_reader(made, root, decode=True).batches(0)) as batches:
        next(batches)
        until(kept.exists)
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 3])
    reader = cached_reader(made, root, decode=True)
    with closing(reader.batches(0)) as batches:
        assert content(batches, 5) == plain(made, 5)
    assert reader.quarantined == {}


def test_cache_shard_that_changed_at_the_origin_is_not_kept(
    make_dataset: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_dataset([10, 15])
    tar = made.root / "shards/000001.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    root = tmp_path / "cache"
    cache = Cache(root=str(root), limit_gib=1)
    reader = Reader(
        open_dataset(made.location), seed=3, slice=PART, cache=cache, tolerance=1, threads=2
    )
    with closing(reader.batches(0)) as batches:
        next(batches)
        until(lambda: "000001.tar differs from the manifest's sha256" in caplog.text)
        until(lambda: names(root) == [f"{made.manifest.shards[0].sha256}.tar"])
    assert len(reader.quarantined) <= 1


def test_cache_decoded_bad_sample_is_masked_like_without_cache(
    make_dataset: Any, tmp_path: Path
) -> None:
    made = make_dataset([25])
    tar = made.root / "shards/000000.tar"
    data = tar.read_bytes()
    at = data.index(made.clips["s000-0004"].tobytes())
    tar.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    root = tmp_path / "cache"
    reader = cached_reader(made, root, decode=True)
    with closing(reader.batches(0)) as batches:
        content(batches, 5)
        until(lambda: len(names(root)) == 1 and names(root)[0].endswith(".u8"))
        kept = names(root)
        assert content(batches, 5) == plain(made, 10)[5:]
    assert list(reader.quarantined) == ["s000-0004"]
    assert names(root) == kept


def test_folder_partial_file_of_a_dead_process_is_removed_of_a_living_one_left(
    tmp_path: Path,
) -> None:
    dead, living = tmp_path / f"{'a' * 64}.part", tmp_path / f"{'b' * 64}.part"
    dead.write_bytes(b"half")
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Folder(tmp_path, 100)
        assert names(tmp_path) == [living.name]


def test_folder_second_writer_of_a_shard_steps_back(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 100)
    with folder.writing("c" * 64, "c.tar", 3) as first:
        assert first is not None
        with folder.writing("c" * 64, "c.tar", 3) as second:
            assert second is None
        os.pwrite(first, b"abc", 0)
    with folder.writing("c" * 64, "c.tar", 3) as third:
        assert third is None
    assert names(tmp_path) == ["c.tar"]
    assert (tmp_path / "c.tar").read_bytes() == b"abc"


def test_folder_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 100)
    with pytest.raises(ValueError, match="broke"), folder.writing("d" * 64, "d.tar", 3):
        raise ValueError("broke")
    assert names(tmp_path) == []
