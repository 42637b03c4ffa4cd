"""Makes a WebDataset of clips readable here: `python -m shards.index DATASET --frames 32`.

DATASET holds tars of anyone's making below `DATASET/shards/`, with one clip per sample: a `.jpg` of
the frames one below the other, or raw `.u8`. Each tar is read once, whole; its index is written
beside it, and the manifest last. The tars are not changed. Where every sample has a `.json` with a
list `labels`, the first of them is its class. Exit status: 0 done, 1 a tar or clip is unfit, 2 the
call was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
from collections import Counter

import google_crc32c
import numpy as np
import simplejpeg

from shards.catalog import Extent, read_index
from shards.decode import check_encoding, decode_into
from shards.manifest import LABEL, MANIFEST, ClipFormat, Manifest, Shard
from shards.quarantine import BadSampleError
from shards.storage import Store, open_store
from shards.tarfmt import Member, format_index


class UnfitError(Exception):
    """A tar, or a clip in it, that the reader could not use; the text names it."""


def scan(tar: bytes, *, where: str) -> list[Member]:
    """The regular files of a tar, in its order.

    Raises UnfitError when it is no whole tar, has no end, or a name does not fit the index.
    """
    members = []
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for info in archive:
                data = tar[info.offset_data : info.offset_data + info.size]
                if len(data) != info.size:
                    raise UnfitError(f"{where}: ends within {info.name}")
                if info.isreg():
                    crc = int(google_crc32c.value(data))
                    members.append(
                        Member(name=info.name, offset=info.offset_data, size=info.size, crc32c=crc)
                    )
            end = archive.offset
    except tarfile.TarError as error:
        raise UnfitError(f"{where}: not a tar: {error}") from None
    # A tar cut between two members still parses; only its closing zero block tells.
    if tar[end : end + tarfile.BLOCKSIZE] != bytes(tarfile.BLOCKSIZE):
        raise UnfitError(f"{where}: has no end mark, so members may be missing")
    for member in members:
        if not member.name.isascii() or not member.name.isprintable():
            raise UnfitError(f"{where}: name {member.name!r}: only printable ASCII fits the index")
    return members


def index_dataset(store: Store, clip: ClipFormat) -> Manifest:
    """Writes an index for every tar below `shards/`, then the manifest.

    Every clip is decoded once. Raises UnfitError for the first that is not of that format, and
    FileNotFoundError when there are no tars.
    """
    tars = [name for name, _ in store.list("shards/") if name.endswith(".tar")]
    if not tars:
        raise FileNotFoundError(f"no tars below {store.location}/shards/")
    shards = []
    seen: set[bytes] = set()
    classes: Counter[str | None] = Counter()
    for name in tars:
        tar = store.read(name)
        text = format_index(scan(tar, where=name))
        found = read_index(text, clip.encoding, where=name)
        scratch = np.empty(clip.shape, dtype=np.uint8)
        for sample, key in enumerate(found.keys.tolist()):
            if key in seen:
                raise UnfitError(f"{name}: key {key.decode()} occurs twice in the dataset")
            seen.add(key)
            extent = found.clip(sample)
            try:
                data = tar[extent.offset : extent.offset + extent.size]
                decode_into(data, scratch, clip.encoding)
            except BadSampleError as error:
                raise UnfitError(f"{name}: {key.decode()}: {error}") from None
            classes[_label(tar, found.json(sample))] += 1
        shard = Shard(
            name=name.removeprefix("shards/").removesuffix(".tar"),
            samples=len(found.keys),
            bytes=len(tar),
            sha256=hashlib.sha256(tar).hexdigest(),
            index_bytes=len(text),
            index_sha256=hashlib.sha256(text).hexdigest(),
        )
        store.write(shard.index, text)
        shards.append(shard)
    counts = {"clips_kept": sum(shard.samples for shard in shards)}
    if None not in classes:
        counts |= {f"{LABEL}{name}": number for name, number in classes.items()}
    manifest = Manifest(clip=clip, shards=tuple(shards), recipe={"name": "foreign"}, counts=counts)
    store.write(MANIFEST, manifest.to_json())
    return manifest


def _label(tar: bytes, note: Extent | None) -> str | None:
    """The sample's class, where its provenance has `labels` as ours does."""
    if note is None:
        return None
    try:
        label = json.loads(tar[note.offset : note.offset + note.size])["labels"][0]
    except (ValueError, LookupError, TypeError):
        return None
    return label if isinstance(label, str) else None


def find_format(store: Store, *, frames: int, fps: float, size: str | None) -> ClipFormat:
    """The clips' format: of the first `.jpg`, or raw with the `size` given as HxWxC.

    Raises UnfitError when it cannot be told, ValueError for a malformed size.
    """
    if size is not None:
        try:
            height, width, channels = (int(part) for part in size.split("x"))
        except ValueError:
            raise ValueError(f"--raw {size}: want HEIGHTxWIDTHxCHANNELS, as 64x64x3") from None
        encoding = "u8"
    else:
        rows, width, channels = _first_jpeg(store)
        if rows % frames:
            raise UnfitError(f"the first jpg is {rows} high, which is not {frames} frames")
        height, encoding = rows // frames, "jpg"
    return ClipFormat(
        frames=frames, height=height, width=width, channels=channels, fps=fps, encoding=encoding
    )


def _first_jpeg(store: Store) -> tuple[int, int, int]:
    for name, _ in store.list("shards/"):
        if name.endswith(".tar"):
            tar = store.read(name)
            for member in scan(tar, where=name):
                if member.extension == "jpg":
                    data = tar[member.offset : member.offset + member.size]
                    try:
                        rows, width, colours, _ = simplejpeg.decode_jpeg_header(data)
                    except ValueError as error:
                        raise UnfitError(f"{name}: {member.name}: {error}") from None
                    return rows, width, 1 if colours.lower() == "gray" else 3
    raise UnfitError(f"no .jpg in the tars below {store.location}/shards/; --raw for .u8")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m shards.index",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--frames", type=int, required=True, help="frames of every clip")
    parser.add_argument("--fps", type=float, default=25.0, help="(default %(default)s)")
    parser.add_argument("--raw", metavar="HxWxC", help="clips are .u8, of this size")
    given = parser.parse_args(arguments)
    try:
        if given.frames < 1:
            raise ValueError(f"--frames {given.frames}: must be at least 1")
        store = open_store(given.dataset)
        if any(store.list(MANIFEST)):
            raise ValueError(f"{store.location} has a manifest; delete it to index the tars anew")
        clip = find_format(store, frames=given.frames, fps=given.fps, size=given.raw)
        check_encoding(clip)
        manifest = index_dataset(store, clip)
    except UnfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shape = "x".join(map(str, clip.shape))
    print(
        f"{store.location}: {len(manifest.shards)} shards, {manifest.samples} clips of {shape}, "
        f"version {manifest.version[:12]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
