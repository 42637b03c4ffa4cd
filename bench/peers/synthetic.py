"""What several benches do alike: write a dataset made up for them, ask another process."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shards.manifest import MANIFEST, ClipFormat, Manifest, Shard
from shards.tarfmt import format_index, write_tar

ROOT = Path(__file__).parents[2]
Members = Iterable[tuple[str, bytes]]


def packed(name: str, members: Members) -> tuple[Shard, bytes, bytes]:
    """(a shard of one-file samples, its tar, its index). members: (file name, data), sorted."""
    file = io.BytesIO()
    written = write_tar(file, members)
    tar, index = file.getvalue(), format_index(written)
    shard = Shard(
        name=name,
        samples=len(written),
        bytes=len(tar),
        sha256=hashlib.sha256(tar).hexdigest(),
        index_bytes=len(index),
        index_sha256=hashlib.sha256(index).hexdigest(),
    )
    return shard, tar, index


def seal(root: Path, clip: ClipFormat, shards: Iterable[Shard]) -> None:
    """Writes the manifest of shards that are in place."""
    manifest = Manifest(clip=clip, shards=tuple(shards), recipe={}, counts={})
    (root / MANIFEST).write_bytes(manifest.to_json())


def write(root: Path, clip: ClipFormat, contents: Iterable[Members]) -> None:
    """A dataset at `root` with a shard for each of `contents`."""
    (root / "shards").mkdir(parents=True, exist_ok=True)
    shards = []
    for number, members in enumerate(contents):
        shard, tar, index = packed(f"{number:06d}", members)
        (root / shard.tar).write_bytes(tar)
        (root / shard.index).write_bytes(index)
        shards.append(shard)
    seal(root, clip, shards)


def answer(command: list[str], question: str = "", **environment: str) -> dict[str, Any] | str:
    """The JSON that the command prints last, or in words what went wrong; 300 s are allowed."""
    alone = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    try:
        done = subprocess.run(
            command,
            input=question,
            capture_output=True,
            text=True,
            env=os.environ | alone,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "did not end within 300 s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["?"])[-1]
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures
