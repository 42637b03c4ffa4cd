"""The ingest with its videos and its dataset both on S3: the same bytes as in a folder."""

import json

import boto3
import pytest

from shards import spill
from shards.demo import encode, scenes
from shards.ingest import main
from shards.manifest import load_manifest
from shards.sources import IN_MEMORY_BYTES, Source, open_source
from shards.storage import open_store

ARGUMENTS = ["--workers", "1", "--stabilizer", "lk", "--shard-mib", "1", "--encoding", "u8"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number, scene in enumerate(scenes(4)):
        encode(scene, root / f"v{number}.mp4", 34)
    return root


def contents(store):
    return {name: store.read(name) for name, _ in store.list() if name != "report.json"}


def test_ingest_from_s3_to_s3_gives_the_bytes_of_a_local_one(bucket, videos, tmp_path, monkeypatch):
    s3 = boto3.Session().client("s3")
    for path in videos.iterdir():
        s3.upload_file(str(path), bucket.name, f"raw/{path.name}")
    src, dst = f"s3://{bucket.name}/raw", f"s3://{bucket.name}/data/set"
    assert main([str(videos), str(tmp_path / "d"), *ARGUMENTS]) == 0

    class Stopped(BaseException):
        pass

    def stops(job):
        raise Stopped

    with monkeypatch.context() as patch:  # everything is cut, nothing packed
        patch.setattr("shards.ingest.pack_shard", stops)
        with pytest.raises(Stopped):
            main([src, dst, *ARGUMENTS])
    again = []
    monkeypatch.setattr("shards.ingest.cut_batch", lambda j: again.append(j) or spill.cut_batch(j))
    assert main([src, dst, *ARGUMENTS]) == 0
    assert again == []
    store = open_store(dst)
    assert contents(store) == contents(open_store(str(tmp_path / "d")))
    assert load_manifest(store).counts["clips_kept"] == 4
    report = json.loads(store.read("report.json"))
    assert report["videos"][0]["etag"]


def test_list_of_s3_urls_reads_each_in_parts(bucket, videos, monkeypatch):
    s3 = boto3.Session().client("s3")
    data = (videos / "v0.mp4").read_bytes()
    s3.put_object(Bucket=bucket.name, Key="raw/v0.mp4", Body=data)
    monkeypatch.setattr("shards.sources.PART_BYTES", 10_000)
    assert len(data) < IN_MEMORY_BYTES
    moved = []
    source = Source(name="v", location=f"s3://{bucket.name}/raw/v0.mp4")
    with open_source(source, lambda: moved.append(1)) as (file, _):
        assert file.read() == data
    assert len(moved) == -(-len(data) // 10_000)
