"""Raw video in, a sealed dataset out: `python -m shards.ingest SRC DST [--recipe flickr]`.

SRC is a folder of videos or a list file, DST the dataset to make; both may be on `s3://`. What
cannot be used is counted by reason and listed in `DST/report.json`. The same command started again
goes on where it stopped, and gives the same bytes with any number of workers.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import threadpoolctl  # type: ignore[import-untyped]

from shards import options
from shards.duplicates import find_duplicates, rejecting
from shards.manifest import MANIFEST, Manifest, Shard, load_manifest
from shards.pack import finished_packs, groups, pack_jobs, pack_shard
from shards.progress import Progress
from shards.recipe import Recipe
from shards.report import REPORT, Outcome, count, reasons, report_json, seal, summary
from shards.spill import (
    SPILLS,
    CutJob,
    Plan,
    cut_batch,
    cut_jobs,
    finished_cuts,
    read_record,
    unfinished,
)
from shards.split import taken
from shards.storage import Store, is_remote, join, open_store
from shards.watch import Limits

_OWN_SHARD = re.compile(r"shards/\d{6}\.(tar|idx)")
Job = TypeVar("Job")
Result = TypeVar("Result")
Run = Callable[[Callable[[Job], Result], Sequence[Job]], Iterator[tuple[Job, Result]]]


class NothingKeptError(Exception):
    """Every clip of every video was rejected: there is no dataset to make."""


class OccupiedError(Exception):
    """DST holds something that this ingest did not make."""


def ingest(
    src: str,
    dst: str,
    recipe: Recipe,
    *,
    workers: int | None = None,
    fresh: bool = False,
    limits: Limits | None = None,
    progress: Callable[[str], Progress] = Progress,
) -> Outcome:
    """Makes, finishes or finds the dataset at `dst`.

    workers: tasks at a time; 0 or 1 for this very process, None for every CPU of the Ray cluster
    (RAY_ADDRESS, or one started here). fresh: replaces what is at `dst`. limits: of one source.
    Raises FileNotFoundError and ValueError for a `src` without videos, or a split of others,
    OccupiedError for a `dst` that is taken, NothingKeptError.
    """
    src, dst = (where if "://" in where else str(Path(where).absolute()) for where in (src, dst))
    sources = taken(src, recipe)
    plan = Plan(recipe=recipe, sources=tuple(sources))
    store = open_store(dst)
    if fresh:
        _clear(store)
    report = join(dst, REPORT)
    found = _existing(store, plan)
    if found:
        return Outcome(manifest=found, report=report, existed=True)
    _clear(store, keep=plan.hash)
    jobs = cut_jobs(plan, dst, limits)
    if workers is not None and workers <= 1:
        videos, shards = _both_phases(jobs, store, _one_by_one, progress)
    else:
        from shards import distribute

        with distribute.cluster(workers) as at_a_time:

            def everywhere(task: Any, todo: Any) -> Any:
                return distribute.spread(task, todo, at_a_time)

            videos, shards = _both_phases(jobs, store, everywhere, progress)
    counts = count(plan, videos)
    store.write(REPORT, report_json(plan, counts, videos))
    if not shards:
        raise NothingKeptError(f"no clip of {len(videos)} videos was kept: {reasons(counts)}")
    manifest = seal(plan, shards, counts)
    store.write(MANIFEST, manifest.to_json())
    for name, _ in list(store.list(f"{SPILLS}/")):
        store.delete(name)
    if not is_remote(dst):
        shutil.rmtree(join(dst, SPILLS))  # the empty folders
    return Outcome(manifest=manifest, report=report, existed=False)


def _both_phases(
    jobs: list[CutJob], store: Store, run: Any, progress: Callable[[str], Progress]
) -> tuple[list[dict[str, Any]], list[Shard]]:
    """(reports of all videos, sorted by source; the shards)."""
    records = finished_cuts(jobs, store)
    with progress("cut") as bar:
        bar.start(sum(len(job.sources) for job in jobs))
        for record in records.values():
            bar.found(record["videos"], record["attempt"])
        while todo := unfinished(jobs, records):
            for job, record in run(cut_batch, todo):
                if job.number in records:
                    bar.again(records[job.number]["videos"])
                records[job.number] = record
                bar.cut(record["videos"])
    copies = _copies(jobs, store)
    shards: list[Shard] = []
    with progress("pack") as bar:
        bar.start(0)
        for group in groups(jobs):
            packs = pack_jobs(group, store, first=len(shards), without=copies)
            written = finished_packs(packs, store)
            bar.more(len(packs), len(written))
            for pack, shard in run(pack_shard, [p for p in packs if p.name not in written]):
                written[pack.name] = shard
                bar.packed(shard)
            shards += [written[pack.name] for pack in packs]
    videos = rejecting((video for r in records.values() for video in r["videos"]), copies)
    return sorted(videos, key=lambda video: str(video["source"])), shards


def _copies(jobs: list[CutJob], store: Store) -> dict[str, str]:
    most_bits = jobs[0].recipe.duplicate_bits
    if most_bits is None:
        return {}
    hashes = (entry for job in jobs for entry in read_record(job, store)["hashes"])
    return find_duplicates(dict(hashes), most_bits)


def _one_by_one(task: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
    with threadpoolctl.threadpool_limits(1):  # as in a Ray task: the matrices here are small
        for job in jobs:
            yield job, task(job)


def _existing(store: Store, plan: Plan) -> Manifest | None:
    try:
        manifest = load_manifest(store)
    except FileNotFoundError:
        return None
    if manifest.recipe.get("plan") != plan.hash:
        raise OccupiedError(
            f"DST {store.location} holds a dataset of other videos or another recipe "
            f"({manifest.samples} clips, version {manifest.version[:12]}): "
            "name another DST, or replace it with --fresh"
        )
    return manifest


def _clear(store: Store, *, keep: str | None = None) -> None:
    """Removes an ingest's own files, whole or unfinished, and no others; not those of plan `keep`.

    Where there is no trace of an ingest, nothing is touched.
    """
    spills = [name for name, _ in store.list(f"{SPILLS}/")]
    others = [name for name in spills if not (keep and name.startswith(f"{SPILLS}/{keep}/"))]
    sealed = [name for name, _ in store.list(MANIFEST) if name == MANIFEST]
    if not others and not sealed:
        return
    written = [name for name, _ in store.list("shards/") if _OWN_SHARD.fullmatch(name)]
    for name in [*sealed, REPORT, *written, *others]:  # first the seal: the rest is no dataset
        store.delete(name)


def ingest_command(src: str, dst: str, recipe: Recipe, **options: Any) -> int:
    """`ingest` for a terminal: prints, and turns errors into the exit status."""
    try:
        outcome = ingest(src, dst, recipe, **options)
    except (FileNotFoundError, ValueError, OccupiedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        print(f"error: DST {dst} cannot be written to: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"error: {error}\nthe same command goes on from here", file=sys.stderr)
        return 1
    except NothingKeptError as error:
        print(f"error: {error}\neach video's fate: {join(dst, REPORT)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 1
    if outcome.existed:
        print(f"already complete: {dst}")
    print(summary(outcome))
    return 0


def main(
    arguments: list[str] | None = None,
    *,
    prog: str = "python -m shards.ingest",
    description: str | None = __doc__,
    run: Callable[..., int] = ingest_command,
) -> int:
    """The command; returns its exit status. `run` is called like `ingest_command`."""
    given = options.parser(prog, description).parse_args(arguments)
    try:
        recipe, limits = options.recipe_of(given), options.limits_of(given)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run(
        given.source,
        given.destination,
        recipe,
        workers=given.workers,
        fresh=given.fresh,
        limits=limits,
    )


if __name__ == "__main__":
    sys.exit(main())
