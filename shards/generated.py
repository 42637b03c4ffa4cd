"""Datasets that are a formula: `python -m shards.generated DST --digits 2 --part train`.

    python -m shards.generated var/shards/bouncing_one_train
    python -m shards.generated var/shards/bouncing_two_test --digits 2 --part test --count 2000
    python -m shards.generated s3://bucket/shards/bouncing_one_train --pictures mnist/ --tars

Bouncing digits (see `shards.bouncing`) from --pictures, a folder of MNIST's IDX files, or else from
those that scikit-learn ships. DST gets the manifest, the indexes and the digits' pictures. The tars
are not kept unless --tars says so: the reader makes the bytes that it wants when it wants them,
byte for byte what the tars would hold, which the index's crc32c proves at every read.

Exit status: 0 done, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from tqdm import tqdm

from shards.bouncing import Bouncing, Glyphs, find_glyphs
from shards.manifest import MANIFEST, WORD, ClipFormat, Manifest, Shard
from shards.storage import Store, open_store
from shards.tarfmt import Member, format_index

NAME = "bouncing_digits"  # the recipe's
PICTURES = "digits.npz"
SHARD_SAMPLES = 256
FPS = 10.0  # the papers do not say; ten frames make a second
_NOTE = 512  # bytes of every provenance member, blanks at its end: so all samples are of one size
_BLOCK = tarfile.BLOCKSIZE
_END = 2 * _BLOCK


class GeneratedStore:
    """A store that also has a set's tars, made anew whenever they are read; see `Store`."""

    def __init__(self, store: Store, clips: Bouncing) -> None:
        self.location = store.location
        self._store = store
        self._clips = clips
        with np.load(io.BytesIO(store.read(PICTURES))) as kept:
            self._glyphs = Glyphs(pictures=kept["pictures"], digits=kept["digits"], name="kept")
        self._tars = {f"shards/{number:06d}.tar": number for number in range(_shards(clips))}

    def read(self, name: str) -> bytes:
        if name not in self._tars:
            return self._store.read(name)
        return self.read_range(name, 0, self._bytes(name))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        if name not in self._tars:
            return self._store.read_range(name, offset, size)
        first, step = self._tars[name] * SHARD_SAMPLES, _sample_bytes(self._clips)
        count = _samples(self._clips, self._tars[name])
        start, stop = offset // step, min(count, -(-(offset + size) // step))
        parts = [
            _sample(self._clips, self._glyphs, first + n)[0] for n in range(min(start, count), stop)
        ]
        if offset + size > count * step:
            parts.append(bytes(_END))
        skipped = offset - min(start, count) * step
        return b"".join(parts)[skipped : skipped + size]

    def write(self, name: str, data: bytes) -> None:
        self._store.write(name, data)

    def write_new(self, name: str, data: bytes) -> bool:
        return self._store.write_new(name, data)

    def upload(self, name: str, path: Path) -> None:
        self._store.upload(name, path)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        made = {name: self._bytes(name) for name in self._tars if name.startswith(prefix)}
        yield from sorted((made | dict(self._store.list(prefix))).items())

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def _bytes(self, name: str) -> int:
        return _samples(self._clips, self._tars[name]) * _sample_bytes(self._clips) + _END


def whole(store: Store, manifest: Manifest) -> Store:
    """The dataset's store, with its tars made on the fly where it is generated and they are absent.

    Raises FileNotFoundError where the digits' pictures are missing.
    """
    if manifest.recipe.get("name") != NAME or next(_tars(store), None) is not None:
        return store
    return GeneratedStore(store, Bouncing(**manifest.recipe["clips"]))


def generate(store: Store, clips: Bouncing, glyphs: Glyphs, *, tars: bool = False) -> Manifest:
    """Writes the dataset; the manifest, by which it is there, last. Equal arguments, equal bytes.

    tars: keeps them as well.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, pictures=glyphs.pictures, digits=glyphs.digits)
    store.write(PICTURES, packed.getvalue())
    shards = []
    counts: Counter[str] = Counter()
    with tqdm(total=clips.count, desc="generated", unit="clip", disable=None) as bar:
        for number in range(_shards(clips)):
            made = []
            tar, members = bytearray(), []
            for place in range(_samples(clips, number)):
                data, found, note = _sample(clips, glyphs, number * SHARD_SAMPLES + place)
                members += [
                    Member(name=m.name, offset=m.offset + len(tar), size=m.size, crc32c=m.crc32c)
                    for m in found
                ]
                tar += data
                made.append(note)
            tar += bytes(_END)
            counts.update(f"{WORD}{word}" for note in made for word in note["caption"].split())
            index = format_index(members)
            shard = Shard(
                name=f"{number:06d}",
                samples=len(made),
                bytes=len(tar),
                sha256=hashlib.sha256(tar).hexdigest(),
                index_bytes=len(index),
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
            if tars:
                store.write(shard.tar, bytes(tar))
            store.write(shard.index, index)
            shards.append(shard)
            bar.update(len(made))
    manifest = Manifest(
        clip=ClipFormat(
            frames=clips.frames,
            height=clips.size,
            width=clips.size,
            channels=1,
            fps=FPS,
            encoding="u8",
            detail="grey",
        ),
        shards=tuple(shards),
        recipe={"name": NAME, "clips": asdict(clips), "digits_from": glyphs.name},
        counts={"clips_kept": clips.count, **counts},
    )
    store.write(MANIFEST, manifest.to_json())
    return manifest


def _tars(store: Store) -> Iterator[str]:
    return (name for name, _ in store.list("shards/") if name.endswith(".tar"))


def _shards(clips: Bouncing) -> int:
    return -(-clips.count // SHARD_SAMPLES)


def _samples(clips: Bouncing, shard: int) -> int:
    return min(SHARD_SAMPLES, clips.count - shard * SHARD_SAMPLES)


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


@lru_cache(maxsize=8)
def _sample_bytes(clips: Bouncing) -> int:
    """Of one sample in a tar: two headers, the provenance, the pixels."""
    return 2 * _BLOCK + _NOTE + _blocks(clips.frames * clips.size**2)


def _sample(clips: Bouncing, glyphs: Glyphs, n: int) -> tuple[bytes, list[Member], dict[str, Any]]:
    """(the bytes of clip n in a tar, its members with offsets within them, its provenance)."""
    video, note = clips.clip(n, glyphs)
    text = json.dumps(note, sort_keys=True).encode().ljust(_NOTE)
    assert len(text) == _NOTE, "a provenance fits its place"
    out, members = bytearray(), []
    for extension, data in (("json", text), ("u8", video.tobytes())):
        info = tarfile.TarInfo(f"{n:08d}.{extension}")
        info.size, info.mode = len(data), 0o644
        out += info.tobuf(tarfile.USTAR_FORMAT)
        crc = int(google_crc32c.value(data))
        members.append(Member(name=info.name, offset=len(out), size=len(data), crc32c=crc))
        out += data.ljust(_blocks(len(data)), b"\0")
    return bytes(out), members, note


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m shards.generated", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dst", metavar="DST", help="the dataset: a folder or an s3:// URL")
    parser.add_argument("--digits", type=int, default=1, help="in each clip, 1 or 2")
    parser.add_argument("--part", choices=["train", "test", "unseen", "all"], default="train")
    parser.add_argument("--count", type=int, default=12_000, help="clips (default %(default)s)")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="of a frame, in pixels")
    parser.add_argument("--overlap", choices=["add", "max"], default="add")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", metavar="FOLDER", help="MNIST's IDX files")
    parser.add_argument("--tars", action="store_true", help="keep the tars, for other readers")
    given = parser.parse_args(argv)
    try:
        fields = ("digits", "part", "count", "frames", "size", "overlap", "seed")
        clips = Bouncing(**{name: getattr(given, name) for name in fields})
        glyphs = find_glyphs(given.pictures)
        manifest = generate(open_store(given.dst), clips, glyphs, tars=given.tars)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    kept = "with" if given.tars else "without"
    print(
        f"{given.dst}: {manifest.samples} clips of {clips.digits} digit(s) of {glyphs.name}, "
        f"{kept} tars, version {manifest.version[:12]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
