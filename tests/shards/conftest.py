"""A small dataset written through the formats alone: noise clips, seeded, no ingest."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray

from shards.manifest import MANIFEST, ClipFormat, Manifest, Shard
from shards.tarfmt import format_index, write_tar


@dataclass(frozen=True)
class Made:
    """A dataset on disk, and the clips (T, H, W, C) that went in, by key."""

    root: Path
    manifest: Manifest
    clips: dict[str, NDArray[np.uint8]]

    @property
    def location(self) -> str:
        return str(self.root)

    @property
    def keys(self) -> list[list[str]]:
        """Keys by shard, in the tar's order."""
        return [
            [key for key in sorted(self.clips) if key.startswith(f"s{number:03d}")]
            for number in range(len(self.manifest.shards))
        ]


MakeDataset = Callable[..., Made]


def encode(clip_thwc: NDArray[np.uint8], encoding: str) -> bytes:
    if encoding == "u8":
        return clip_thwc.tobytes()
    frames, height, width, channels = clip_thwc.shape
    strip = clip_thwc.reshape(frames * height, width, channels)
    colours = "RGB" if channels == 3 else "GRAY"
    return bytes(
        simplejpeg.encode_jpeg(strip, quality=95, colorspace=colours, colorsubsampling="444")
    )


def write_dataset(
    root: Path,
    sizes: Sequence[int],
    *,
    encoding: str = "u8",
    shape: tuple[int, int, int, int] = (2, 8, 8, 3),
    seed: int = 0,
) -> Made:
    """Shards of `sizes` clips at `root`; keys are `s<shard>-<sample>`."""
    rng = np.random.default_rng(seed)
    clips: dict[str, NDArray[np.uint8]] = {}
    shards = []
    (root / "shards").mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        members = []
        for sample in range(size):
            key = f"s{number:03d}-{sample:04d}"
            clips[key] = rng.integers(0, 256, shape, dtype=np.uint8)
            members.append((f"{key}.{encoding}", encode(clips[key], encoding)))
            members.append((f"{key}.json", json.dumps({"key": key, "n": sample}).encode()))
        tar = io.BytesIO()
        index = format_index(write_tar(tar, sorted(members)))
        name = f"{number:06d}"
        (root / f"shards/{name}.tar").write_bytes(tar.getvalue())
        (root / f"shards/{name}.idx").write_bytes(index)
        shards.append(
            Shard(
                name=name,
                samples=size,
                bytes=len(tar.getvalue()),
                sha256=hashlib.sha256(tar.getvalue()).hexdigest(),
                index_bytes=len(index),
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
        )
    frames, height, width, channels = shape
    clip = ClipFormat(
        frames=frames, height=height, width=width, channels=channels, fps=25.0, encoding=encoding
    )
    manifest = Manifest(clip=clip, shards=tuple(shards), recipe={"name": "noise"}, counts={})
    (root / MANIFEST).write_bytes(manifest.to_json())
    return Made(root=root, manifest=manifest, clips=clips)


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Makes noise datasets below the test's folder: `make_dataset([4, 5], encoding="jpg")`."""

    def make(sizes: Sequence[int], *, name: str = "noise", **options: object) -> Made:
        return write_dataset(tmp_path / name, sizes, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session", name="write_dataset")
def write_dataset_fixture() -> Callable[..., Made]:
    """`write_dataset`, for tests that want a dataset to live longer than one test."""
    return write_dataset
