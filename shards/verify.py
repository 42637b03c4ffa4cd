"""Is a dataset whole? `python -m shards.verify DATASET [--repair SOURCE]`.

Every tar and index is read whole: its size and sha256 against the manifest, every member's crc32c
against the index, the number of samples; and a spread of clips is decoded. `--repair` replaces what
is broken by the same files of SOURCE, another copy of the same version, after checking them.
Exit status: 0 whole (or repaired), 1 broken, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator

import google_crc32c
import numpy as np

from shards.catalog import read_index
from shards.dataset import Dataset
from shards.decode import check_encoding, decode_into
from shards.fill import check
from shards.generated import whole
from shards.manifest import Shard, load_manifest
from shards.quarantine import BadSampleError
from shards.storage import Store, open_store
from shards.tarfmt import Member, parse_index

_NAMED_PER_SHARD = 5


def faults_of(dataset: Dataset, shard: Shard, *, decode: int) -> Iterator[tuple[str, str]]:
    """(name of the file, what is wrong with it) for each fault of a shard.

    decode: clips to decode, spread over the shard. Holds one tar in memory.
    """
    tar = _read(dataset.store, shard.tar)
    text = _read(dataset.store, shard.index)
    if isinstance(tar, str):
        yield shard.tar, tar
    if isinstance(text, str):
        yield shard.index, text
        return
    if hashlib.sha256(text).hexdigest() != shard.index_sha256:
        yield shard.index, f"sha256 differs from the manifest's ({_sizes(text, shard.index_bytes)})"
        return
    if isinstance(tar, str):
        return
    if hashlib.sha256(tar).hexdigest() != shard.sha256:
        yield shard.tar, f"sha256 differs from the manifest's ({_sizes(tar, shard.bytes)})"
    yield from _member_faults(dataset, shard, tar, text, decode)


def _member_faults(
    dataset: Dataset, shard: Shard, tar: bytes, text: bytes, decode: int
) -> Iterator[tuple[str, str]]:
    clip_format = dataset.manifest.clip
    members = parse_index(text, where=shard.index)
    bad = [m.name for m in members if not _sound(m, tar)]
    if bad:
        more = f" and {len(bad) - _NAMED_PER_SHARD} more" if len(bad) > _NAMED_PER_SHARD else ""
        named = ", ".join(bad[:_NAMED_PER_SHARD])
        yield shard.tar, f"{len(bad)} members are damaged: {named}{more}"
    index = read_index(text, clip_format.encoding, where=shard.index)
    if len(index.keys) != shard.samples:
        yield shard.index, f"{len(index.keys)} samples, the manifest says {shard.samples}"
    clip = np.empty(clip_format.shape, dtype=np.uint8)
    count = len(index.keys)
    for sample in sorted({n * count // max(decode, 1) for n in range(min(decode, count))}):
        extent = index.clip(sample)
        data = tar[extent.offset : extent.offset + extent.size]
        try:
            check(extent, data)
        except BadSampleError:
            continue  # counted above
        try:
            decode_into(data, clip, clip_format.encoding)
        except BadSampleError as error:
            yield shard.tar, f"{index.key(sample)}: {error}"


def _sound(member: Member, tar: bytes) -> bool:
    data = tar[member.offset : member.offset + member.size]
    return len(data) == member.size and google_crc32c.value(data) == member.crc32c


def _read(store: Store, name: str) -> bytes | str:
    try:
        return store.read(name)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error}"


def _sizes(data: bytes, expected: int) -> str:
    return f"{len(data)} bytes, not {expected}" if len(data) != expected else "same size"


def repair(dataset: Dataset, shard: Shard, name: str, source: Store) -> str | None:
    """Replaces the file by the source's; what is wrong with that one, or None when it is done."""
    data = _read(source, name)
    if isinstance(data, str):
        return f"in the source it {data}"
    expected = shard.sha256 if name == shard.tar else shard.index_sha256
    if hashlib.sha256(data).hexdigest() != expected:
        return "in the source it is damaged or different too"
    dataset.store.write(name, data)
    return None


def verify(dataset: Dataset, *, decode: int, source: Store | None) -> int:
    """Prints a line for every fault and a summary; the faults that remain."""
    manifest = dataset.manifest
    remain = broken = 0
    for number, shard in enumerate(manifest.shards):
        decoded = decode // len(manifest.shards) + (number < decode % len(manifest.shards))
        found: dict[str, list[str]] = {}
        for name, fault in faults_of(dataset, shard, decode=decoded):
            found.setdefault(name, []).append(fault)
        for name, faults in found.items():
            broken += 1
            failure = "not repaired" if source is None else repair(dataset, shard, name, source)
            remain += failure is not None
            print(f"{name}: {'; '.join(faults)}: {failure or 'repaired'}", flush=True)
    gib = sum(shard.bytes for shard in manifest.shards) / 2**30
    print(
        f"{dataset.store.location}: {len(manifest.shards)} shards, {manifest.samples} samples, "
        f"{gib:.3g} GiB read, version {dataset.version[:12]}: "
        + ("whole" if not broken else f"{broken} files broken, {broken - remain} repaired")
    )
    return remain


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m shards.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--repair", metavar="SOURCE", help="another copy of the same version")
    parser.add_argument("--decode", type=int, default=256, help="clips to decode (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        dataset = _open(given.dataset)
        check_encoding(dataset.manifest.clip)
        source = None
        if given.repair:
            source = open_store(given.repair)
            other = load_manifest(source).version
            if other != dataset.version:
                raise ValueError(
                    f"--repair {given.repair}: it is version {other[:12]}, {given.dataset} is "
                    f"{dataset.version[:12]}; only a copy of the same version can repair it"
                )
        return 1 if verify(dataset, decode=given.decode, source=source) else 0
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _open(location: str) -> Dataset:
    store = open_store(location)
    manifest = load_manifest(store)
    return Dataset(manifest=manifest, store=whole(store, manifest))


if __name__ == "__main__":
    sys.exit(main())
