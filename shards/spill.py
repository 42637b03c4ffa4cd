"""The first phase of an ingest, which any number of workers may share: cut.

A batch of consecutive sources becomes one *spill*, a tar with all of its clips, and a *record*,
written last, that says what is in it; an archive becomes as many spills as it takes, each committed
by itself, so that a restart goes on behind the last. `shards.pack` deals the clips over shards.

Spills and records lie in `<dataset>/.ingest/<plan>/`, where the plan's hash covers the recipe and
the source list. The tasks here read and write the store themselves; only records travel.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.cut import Cutter, Sample, canonical_json
from shards.fate import VideoReport
from shards.recipe import Recipe
from shards.scene import classifier
from shards.sources import Source
from shards.storage import Store, open_store
from shards.tarfmt import write_tar
from shards.watch import Limits, SourceTimedOutError, Watch

SPILLS = ".ingest"
ATTEMPTS = 3
"""So often a batch is cut in all, as long as some of its sources fail for a TRANSIENT reason."""
TRANSIENT = frozenset(("unreadable", "timed_out", "crashed"))
"""Reasons that may lie with the network or the machine and not with the video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The whole job as a value: every source, in batches, and what to make of them."""

    recipe: Recipe
    sources: tuple[Source, ...]

    @property
    def hash(self) -> str:
        """16 hex digits that change with the recipe, with any source's name, size, or class, and
        with what is known of it."""
        sources = [(s.name, s.bytes, *s.labels, *s.known) for s in self.sources]
        return hashlib.sha256(canonical_json([self.recipe.to_dict(), sources])).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class CutJob:
    """One batch of sources to cut into a spill below `folder` of the dataset at `dataset`."""

    dataset: str
    folder: str
    number: int
    recipe: Recipe
    sources: tuple[Source, ...]
    limits: Limits = field(default_factory=Limits)
    attempt: int = 1

    def tar(self, part: int) -> str:
        """The name of a spill in the dataset."""
        return f"{self.folder}/cut/{self.number:06d}-{part:04d}.tar"

    def part(self, part: int) -> str:
        """The name of the note that this much of an archive is cut."""
        return f"{self.folder}/cut/{self.number:06d}-{part:04d}.json"

    @property
    def record(self) -> str:
        """The record's name in the dataset."""
        return f"{self.folder}/cut/{self.number:06d}.json"

    @property
    def note(self) -> str:
        """The name of the note that says which source is being cut."""
        return f"{self.folder}/trying/{self.number:06d}-{self.attempt}.json"


def cut_jobs(plan: Plan, dataset: str, limits: Limits | None = None) -> list[CutJob]:
    """The first phase, batch by batch; a small job gets small batches, so that it spreads too."""
    folder = f"{SPILLS}/{plan.hash}"
    size = max(1, min(plan.recipe.batch_sources, len(plan.sources) // 64))
    return [
        CutJob(
            dataset=dataset,
            folder=folder,
            number=number,
            recipe=plan.recipe,
            sources=plan.sources[start : start + size],
            limits=limits or Limits(),
        )
        for number, start in enumerate(range(0, len(plan.sources), size))
    ]


def cut_batch(job: CutJob) -> dict[str, Any]:
    """Cuts a batch, writes its spill, then its record; returns the record in brief.

    A record: `attempt` (the job's), `tars` ([spill, bytes] each), `members` ([name, offset, size,
    crc32c, number of the spill] each), `hashes` ([key, perceptual hash] of each clip) and `videos`,
    one VideoReport as a dict per source. Nothing is kept of a source that timed out, but for the
    parts of an archive that were committed before. Raises what `shards.scene` does.
    """
    store = open_store(job.dataset)
    if job.recipe.scene:
        classifier(job.recipe.scene)  # a model that cannot be read is no fault of the videos
    watch = Watch(job.limits, store, job.note)
    while True:
        try:
            return _cut_batch(job, store, watch)
        except SourceTimedOutError as error:
            watch.give_up("timed_out", str(error))


def _cut_batch(job: CutJob, store: Store, watch: Watch) -> dict[str, Any]:
    cutters = [
        Cutter(source, job.recipe, watch.alive)
        for source in sorted(job.sources, key=lambda source: source.id)
    ]
    spills = _committed(job, store) if job.recipe.reads == "archive" else []
    if spills:
        cutters[0].resume(VideoReport(**spills[-1]["report"]), spills[-1]["entries"])
    samples = _samples(cutters, watch)
    for part in itertools.count(len(spills)):
        spill = _spill(job.tar(part), store, samples)
        spill["hashes"] = [entry for cutter in cutters for entry in cutter.hashes]
        spills.append(spill)
        if spill.pop("last"):
            break
        state = {"report": dataclasses.asdict(cutters[0].report), "entries": cutters[0].entries}
        store.write(job.part(part), canonical_json(spill | state))
        cutters[0].hashes.clear()
        watch.passed()
    record = {
        "attempt": job.attempt,
        "tars": [spill["tar"] for spill in spills],
        "members": [[*row, n] for n, spill in enumerate(spills) for row in spill["members"]],
        "hashes": [entry for spill in spills for entry in spill["hashes"]],
        "videos": [dataclasses.asdict(cutter.report) for cutter in cutters],
    }
    store.write(job.record, canonical_json(record))
    return brief(record)


def _spill(name: str, store: Store, samples: Iterator[Sample | None]) -> dict[str, Any]:
    """Writes the samples up to the next that may be committed; `last` says there are no more."""
    last = True

    def those() -> Iterator[Sample]:
        nonlocal last
        for sample in samples:
            if sample is None:
                last = False
                return
            yield sample

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spill.tar"
        with path.open("wb") as file:
            members = write_tar(file, those())
        size = path.stat().st_size
        store.upload(name, path)
    rows = [[m.name, m.offset, m.size, m.crc32c] for m in members]
    return {"tar": [name, size], "members": rows, "last": last}


def _committed(job: CutJob, store: Store) -> list[dict[str, Any]]:
    """The parts of an archive that an earlier process has cut, as far as they are whole."""
    sizes = dict(store.list(f"{job.folder}/cut/{job.number:06d}-"))
    found: list[dict[str, Any]] = []
    while job.part(len(found)) in sizes:
        part = json.loads(store.read(job.part(len(found))))
        name, size = part["tar"]
        if sizes.get(name) != size:
            break
        found.append(part)
    return found


def _samples(cutters: list[Cutter], watch: Watch) -> Iterator[Sample | None]:
    for cutter in cutters:
        if fate := watch.given_up.get(cutter.source.id):
            cutter.leave(*fate)
            continue
        with watch.on(cutter.source.id):
            yield from cutter.samples()
    watch.over()


def unfinished(jobs: Sequence[CutJob], records: Mapping[int, dict[str, Any]]) -> list[CutJob]:
    """What is left to cut: batches without a record, and those worth another attempt."""
    left = []
    for job in jobs:
        record = records.get(job.number)
        if record is None:
            left.append(job)
        elif record["attempt"] < ATTEMPTS and any(
            video["reason"] in TRANSIENT for video in record["videos"]
        ):
            left.append(dataclasses.replace(job, attempt=record["attempt"] + 1))
    return left


def read_record(job: CutJob, store: Store) -> dict[str, Any]:
    """The whole record of a batch that was cut."""
    record: dict[str, Any] = json.loads(store.read(job.record))
    return record


def brief(record: dict[str, Any]) -> dict[str, Any]:
    """What the driver keeps of a record in memory: of millions of clips, not one line each."""
    return {"attempt": record["attempt"], "videos": record["videos"]}


def finished_cuts(jobs: Sequence[CutJob], store: Store) -> dict[int, dict[str, Any]]:
    """Brief records of an earlier run, by batch, where the spill they promise is there whole."""
    sizes = dict(store.list(f"{jobs[0].folder}/cut/")) if jobs else {}
    done = {}
    for job in jobs:
        if job.record in sizes:
            record = read_record(job, store)
            if all(sizes.get(tar) == size for tar, size in record["tars"]):
                done[job.number] = brief(record)
    return done
