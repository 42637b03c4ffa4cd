"""A small dataset of moving squares, and a site below tmp_path."""

import hashlib
import io
import json

import numpy as np
import pytest

from shards.manifest import ClipFormat, Manifest, Shard
from shards.storage import LocalStore
from shards.tarfmt import format_index, write_tar

CLIPS, SHARDS = 40, 4


def write_dataset(location, *, clips=CLIPS, shards=SHARDS):
    """u8 clips of a square that moves at its own speed over its own grey."""
    store = LocalStore(str(location))
    written = []
    for number in range(shards):
        members = []
        for n in range(number, clips, shards):
            video = np.full((32, 64, 64, 3), 40 + 4 * (n % 20), np.uint8)
            for t in range(32):
                left = (n + t * (1 + n % 3)) % 48
                video[t, 24:40, left : left + 16] = 220
            key = f"clip{n:05d}"
            members += [
                (f"{key}.json", json.dumps({"n": n}).encode()),
                (f"{key}.u8", video.tobytes()),
            ]
        buffer = io.BytesIO()
        index = format_index(write_tar(buffer, members))
        tar = buffer.getvalue()
        shard = Shard(
            name=f"{number:06d}",
            samples=len(members) // 2,
            bytes=len(tar),
            sha256=hashlib.sha256(tar).hexdigest(),
            index_bytes=len(index),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        store.write(shard.tar, tar)
        store.write(shard.index, index)
        written.append(shard)
    clip = ClipFormat(frames=32, height=64, width=64, channels=3, fps=25.0, encoding="u8")
    manifest = Manifest(
        clip=clip, shards=tuple(written), recipe={"test": 1}, counts={"clips": clips}
    )
    store.write("manifest.json", manifest.to_json())


@pytest.fixture(scope="session")
def make_dataset():
    """`write_dataset`, for tests that place it themselves."""
    return write_dataset


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The environment of a run: dataset `squares`, runs and MLflow below tmp_path."""
    write_dataset(tmp_path / "shards" / "squares")
    monkeypatch.setenv("SHARDS_ROOT", str(tmp_path / "shards"))
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path
