"""What an ingest costs, stage by stage, and at 5,000 hours: `python bench/ingest.py`.

Videos with a known camera are rendered at 640x480 and ingested with the default recipe, first by
one process, then by two Ray workers. CPU seconds are those that the report of the ingest has for
each stage; "other" is the rest of the processes' CPU time (reading, tar, hashes, and starting up).
Everything at scale is arithmetic on these figures. Writes bench/results/ingest.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from shards import distribute
from shards.demo import FPS, encode, scenes
from shards.ingest import ingest
from shards.recipe import RECIPES

RESULT = Path(__file__).parent / "results" / "ingest.json"
HOURS, CORES = 5_000, 1_024
PRICE_PER_CORE_HOUR = 0.04
"""Dollars; half of what clouds ask for two hyper-threads of a general-purpose machine per hour."""


def run(src: str, dst: str, workers: int) -> dict[str, Any]:
    """One ingest: wall seconds, CPU seconds by stage, hours of video."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    outcome = ingest(src, dst, RECIPES["flickr"], workers=workers)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    videos = json.loads(Path(outcome.report).read_text())["videos"]
    stages = {
        name: sum(video["cpu_s"].get(name, 0.0) for video in videos)
        for name in ("decode", "stabilize", "encode")
    }
    if workers == 1:
        spent = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        stages["other"] = spent - sum(stages.values())
    return {
        "version": outcome.manifest.version,
        "wall_s": round(wall, 2),
        "video_s": sum(video["seconds"] for video in videos),
        "cpu_s": {name: round(value, 2) for name, value in stages.items()},
    }


def projection(one: dict[str, Any]) -> dict[str, float]:
    """5,000 hours on 1,024 cores, from one process's figures."""
    per_hour = sum(one["cpu_s"].values()) / one["video_s"]
    core_hours = HOURS * per_hour
    return {
        "core_hours": round(core_hours),
        "hours_on_1024_cores": round(core_hours / CORES, 2),
        "dollars": round(core_hours * PRICE_PER_CORE_HOUR),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=7.7, help="of each (default 7.7)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        src = Path(temporary) / "videos"
        src.mkdir()
        for number, scene in enumerate(scenes(given.videos)):
            large = dataclasses.replace(scene, scale=4)
            encode(large, src / f"{number}.mp4", round(given.seconds * FPS))
        one = run(str(src), f"{temporary}/one", 1)
        with distribute.cluster(2) as at_a_time:
            list(distribute.spread(_warm, range(2 * at_a_time()), at_a_time))
            two = run(str(src), f"{temporary}/two", 2)
    assert one["version"] == two["version"]
    scale = projection(one)
    print(f"\n{one['video_s'] / 60:.1f} minutes of 640x480 video, one process")
    print(f"{'stage':<12}{'CPU s':>8}{'share':>8}{'hours of video per core-hour':>32}")
    total = sum(one["cpu_s"].values())
    for name, value in [*one["cpu_s"].items(), ("all", total)]:
        print(f"{name:<12}{value:>8.2f}{value / total:>8.0%}{one['video_s'] / value:>32.2f}")
    print(
        f"\n5,000 h: {scale['core_hours']:,} core-hours; on 1,024 cores "
        f"{scale['hours_on_1024_cores']} h; ${scale['dollars']:,} at ${PRICE_PER_CORE_HOUR} each"
    )
    gain = one["wall_s"] / two["wall_s"]
    print(
        f"2 Ray workers: {two['wall_s']} s for {one['wall_s']} s, {gain:.2f} times as fast, same "
        f"bytes; this machine shows {os.cpu_count()} CPUs, which may be two threads of one core"
    )
    result = {"one": one, "two": two, "gain": round(gain, 2), "at 5,000 h": scale}
    result["cpus_shown"] = os.cpu_count()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _warm(_: int) -> None:
    """Imports in a worker what the tasks need."""
    import shards.pack  # noqa: F401


if __name__ == "__main__":
    main()
