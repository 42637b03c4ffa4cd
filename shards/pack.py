"""The second phase of an ingest, which any number of workers may share: pack.

When every batch has its record (see `shards.spill`), the clips of a group of batches are dealt over
shards in the order of their keys' sha256, so that the clips of one video are spread; inside a shard
they stand sorted. What goes into which shard, and every name, follows from the records alone:
neither the number of workers nor a restart can change one byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from shards.cut import canonical_json
from shards.manifest import Shard
from shards.spill import CutJob, read_record
from shards.storage import Store, open_store
from shards.tarfmt import Member, format_index, write_tar


@dataclass(frozen=True, kw_only=True, slots=True)
class PackJob:
    """One shard to write: `members` (spill, member), sorted by member name."""

    dataset: str
    folder: str
    name: str
    members: tuple[tuple[str, Member], ...]

    @property
    def record(self) -> str:
        """The record's name in the dataset."""
        return f"{self.folder}/pack/{self.name}.json"


def groups(jobs: Sequence[CutJob]) -> Iterator[Sequence[CutJob]]:
    """The batches whose clips are mixed, and held in memory as names, together."""
    for start in range(0, len(jobs), jobs[0].recipe.group_batches):
        yield jobs[start : start + jobs[0].recipe.group_batches]


def pack_jobs(
    group: Sequence[CutJob], store: Store, *, first: int, without: Container[str] = ()
) -> list[PackJob]:
    """The second phase of one group, shard by shard; all of it is cut.

    first: the number of its first shard. without: keys of clips that are left out.
    """
    samples: dict[str, list[tuple[str, Member]]] = {}
    for job in group:
        record = read_record(job, store)
        for name, offset, size, crc, part in record["members"]:
            member = Member(name=name, offset=offset, size=size, crc32c=crc)
            if member.key not in without:
                samples.setdefault(member.key, []).append((record["tars"][part][0], member))
    return [
        PackJob(
            dataset=group[0].dataset,
            folder=group[0].folder,
            name=f"{number:06d}",
            members=tuple(entry for key in sorted(keys) for entry in samples[key]),
        )
        for number, keys in enumerate(_dealt(samples, group[0].recipe.shard_bytes), start=first)
    ]


def _dealt(samples: dict[str, list[tuple[str, Member]]], target: int) -> Iterator[list[str]]:
    """The keys, shuffled by their hash, in as many near-equal hands as `target` bytes ask for."""
    if not samples:
        return
    total = sum(member.size for entries in samples.values() for _, member in entries)
    hands = min(len(samples), -(-total // target))
    shuffled = sorted(samples, key=lambda key: hashlib.sha256(key.encode()).digest())
    for hand in range(hands):
        start, stop = (len(shuffled) * n // hands for n in (hand, hand + 1))
        yield shuffled[start:stop]


def pack_shard(job: PackJob) -> Shard:
    """Writes one shard and its index, then its record. Raises ValueError for a damaged spill."""
    store = open_store(job.dataset)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.tar"
        with path.open("wb") as file:
            members = write_tar(file, ((m.name, _member(store, tar, m)) for tar, m in job.members))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        index = format_index(members)
        shard = Shard(
            name=job.name,
            samples=len({member.key for member in members}),
            bytes=path.stat().st_size,
            sha256=digest,
            index_bytes=len(index),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        store.upload(shard.tar, path)
    store.write(shard.index, index)
    store.write(job.record, canonical_json(dataclasses.asdict(shard)))
    return shard


def finished_packs(jobs: Sequence[PackJob], store: Store) -> dict[str, Shard]:
    """The shards that an earlier run has written, by name, where they are there whole."""
    sizes = dict(store.list("shards/"))
    records = {name for name, _ in store.list(f"{jobs[0].folder}/pack/")} if jobs else set()
    done = {}
    for job in jobs:
        if job.record in records:
            shard = Shard(**json.loads(store.read(job.record)))
            if sizes.get(shard.tar) == shard.bytes and sizes.get(shard.index) == shard.index_bytes:
                done[shard.name] = shard
    return done


def _member(store: Store, tar: str, member: Member) -> bytes:
    data = store.read_range(tar, member.offset, member.size)
    if int(google_crc32c.value(data)) != member.crc32c:
        raise ValueError(
            f"{store.location}/{tar}: {member.name} is not what was written there; "
            "delete this file and run the same ingest again"
        )
    return data
