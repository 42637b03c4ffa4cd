"""The S3 store against real servers: what a folder promises, a bucket keeps too."""

from __future__ import annotations

import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import pytest

from shards import s3
from shards.read import Reader, Slice, open_dataset
from shards.s3 import S3Store
from shards.storage import LocalStore, Store, open_store


@pytest.fixture(params=["local", "moto", "seaweed"])
def store(request: pytest.FixtureRequest, tmp_path: Path, use_server: Any) -> Store:
    """Every backend, to hold them to one contract."""
    if request.param == "local":
        return LocalStore(str(tmp_path / "data"))
    return open_store(use_server(request.param).location)


def test_store_written_name_reads_back_whole_and_in_ranges(store: Store) -> None:
    store.write("a/b.bin", b"0123456789")
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read_range("a/b.bin", 3, 4) == b"3456"
    assert store.read_range("a/b.bin", 8, 100) == b"89"
    assert store.read_range("a/b.bin", 10, 5) == b""
    assert store.read_range("a/b.bin", 2, 0) == b""
    store.write("a/b.bin", b"new")
    assert store.read("a/b.bin") == b"new"


def test_store_missing_name_is_file_not_found(store: Store) -> None:
    store.write("here", b"")
    with pytest.raises(FileNotFoundError):
        store.read("nowhere")
    with pytest.raises(FileNotFoundError):
        store.read_range("nowhere", 0, 1)
    store.delete("nowhere")


def test_store_list_gives_names_and_sizes_below_the_prefix_sorted(store: Store) -> None:
    for name in ("b/2", "b/10", "a", "bc", "b/1/x"):
        store.write(name, name.encode())
    assert list(store.list("b/")) == [("b/1/x", 5), ("b/10", 4), ("b/2", 3)]
    assert [name for name, _ in store.list()] == ["a", "b/1/x", "b/10", "b/2", "bc"]
    store.delete("b/10")
    assert [name for name, _ in store.list("b")] == ["b/1/x", "b/2", "bc"]


def test_store_write_new_has_one_winner_among_many(store: Store) -> None:
    barrier = threading.Barrier(8)

    def put(n: int) -> bool:
        barrier.wait()
        return store.write_new("once", b"writer %d" % n)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(put, range(8)))
    assert sum(won) == 1
    assert store.read("once") == b"writer %d" % won.index(True)
    assert store.write_new("once", b"late") is False


def test_store_upload_of_many_parts_is_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    data = bytes(range(256)) * (13 << 12)  # 13 MiB: two whole parts and a shorter one
    path = tmp_path / "big"
    path.write_bytes(data)
    store.upload("big.tar", path)
    assert store.read("big.tar") == data
    assert list(store.list("big")) == [("big.tar", len(data))]


def test_s3_bucket_that_does_not_exist_is_named(bucket: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"s3://absent-bucket/x/name: no such"):
        S3Store("s3://absent-bucket/x").read("name")


def test_s3_wrong_credentials_are_refused_without_being_shown(
    use_server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = use_server("seaweed")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-private")
    caplog.set_level(logging.INFO)
    with pytest.raises(PermissionError, match="access denied") as caught:
        S3Store(bucket.location).read("name")
    assert "wrong-and-private" not in str(caught.value) + caplog.text


def test_s3_no_credentials_say_which_variables(
    use_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = use_server("moto")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID"):
        S3Store(bucket.location).read("name")


def test_s3_location_without_a_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="want s3://BUCKET"):
        open_store("s3:///x")


def test_s3_store_survives_pickling(bucket: Any) -> None:
    store = S3Store(bucket.location)
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def put_dataset(made: Any, bucket: Any) -> None:
    store = open_store(bucket.location)
    for path in sorted(made.root.rglob("*")):
        if path.is_file():
            store.write(path.relative_to(made.root).as_posix(), path.read_bytes())


def test_reader_from_s3_equals_the_reader_from_a_folder(bucket: Any, make_dataset: Any) -> None:
    made = make_dataset([9, 5], encoding="jpg")
    put_dataset(made, bucket)
    part = Slice(rank=0, world_size=1, global_batch=4)
    seen = []
    for location in (made.location, bucket.location):
        batches = Reader(open_dataset(location), seed=1, slice=part, with_json=True).batches(2)
        seen.append([(b.keys, b.video_bthwc.tobytes(), b.json) for b in islice(batches, 5)])
        batches.close()
    assert seen[0] == seen[1]


def test_s3_upload_that_fails_leaves_no_parts_behind(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    path = tmp_path / "big"
    path.write_bytes(bytes(11 << 20))
    store = S3Store(bucket.location)
    monkeypatch.setattr(
        store, "_upload_part", lambda *_: (_ for _ in ()).throw(OSError("the disk went away"))
    )
    with pytest.raises(OSError, match="the disk went away"):
        store.upload("big.tar", path)
    pending = boto3.Session().client("s3").list_multipart_uploads(Bucket=bucket.name)
    assert pending.get("Uploads", []) == []
    assert list(store.list()) == []


def test_s3_put_changed_on_its_way_is_rejected_by_the_server(
    use_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(use_server("seaweed").location)
    monkeypatch.setattr(s3, "_md5", lambda _: "bm90IGFuIE1ENSBzdW0hIQ==")
    with pytest.raises(OSError, match="the server answered 4"):
        store.write("a", b"data")
    assert list(store.list()) == []
