"""What holding a clip still costs and how still it then is: `python bench/stabilize.py`.

Scenes whose camera shake is known are rendered, encoded as H.264 and decoded again at two sizes;
every way of registering holds the same clips, one after the other, so that a busy machine slows all
of them alike. Real clips (`--videos FOLDER`) have no known shake: they say how many are rejected.
Writes bench/results/stabilize.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import threadpoolctl  # type: ignore[import-untyped]

from shards.demo import FPS, encode, scenes
from shards.recipe import Backend
from shards.stabilize import ClipRejectedError, registration_px, stabilize
from shards.video import Frame, Picture, Video, VideoRejectedError

SIZE_PX = 64
FRAMES = 32
SCALES = (4, 8)  # of 160x120
RESULT = Path(__file__).parent / "results" / "stabilize.json"
WAYS: dict[str, tuple[Backend, int | None]] = {
    "sift": ("sift", None),
    "sift320": ("sift320", registration_px("sift320")),
    "sift320 at 256 px": ("sift320", 256),
    "sift320 at 192 px": ("sift320", 192),
    "lk": ("lk", registration_px("lk")),
}


def pictures(path: Path, gray_px: int | None) -> Iterator[list[Picture]]:
    """The clips of a video, as the ingest would cut them."""
    with Video(str(path), fps=FPS, canvas_px=2 * SIZE_PX, gray_px=gray_px) as video:
        clip: list[Frame] = []
        for frame in video.frames():
            if clip and frame.segment != clip[0].segment:
                clip = []
            clip.append(frame)
            if len(clip) == FRAMES:
                yield [shown.picture for shown in clip]
                clip = []


def known_shake(scale: int, count: int, folder: Path) -> dict[str, dict[str, Any]]:
    """By way: milliseconds of CPU per frame (median over scenes), residual motion, rejected."""
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    drifts: dict[str, list[Any]] = {way: [] for way in WAYS}
    for number, plain in enumerate(scenes(count, seed=7)):
        scene = dataclasses.replace(plain, scale=scale)
        path = folder / f"{scale}_{number}.mp4"
        encode(scene, path, FRAMES)
        for way, (backend, gray_px) in WAYS.items():
            (clip,) = pictures(path, gray_px)
            before = time.process_time()
            try:
                steady = stabilize(clip, backend=backend, size_px=SIZE_PX)
            except ClipRejectedError:
                continue
            costs[way].append((time.process_time() - before) / FRAMES * 1e3)
            drifts[way].append(scene.drift_px(steady.to_first, SIZE_PX))
    return {
        way: {
            "ms_per_frame": round(float(np.median(costs[way])), 2),
            "residual_px_median": round(float(np.median(drifts[way])), 3),
            "residual_px_p95": round(float(np.percentile(drifts[way], 95)), 3),
            "residual_px_worst_clip": round(max(float(d.mean()) for d in drifts[way]), 3),
            "rejected": count - len(costs[way]),
        }
        for way in WAYS
    }


def real(folder: Path) -> dict[str, Any]:
    """By way: clips kept and rejected by reason, milliseconds of CPU per frame."""
    found = {}
    for way, (backend, gray_px) in WAYS.items():
        fates: Counter[str] = Counter()
        spent = 0.0
        for path in sorted(folder.iterdir()):
            try:
                for clip in pictures(path, gray_px):
                    before = time.process_time()
                    try:
                        stabilize(clip, backend=backend, size_px=SIZE_PX)
                        fates["kept"] += 1
                    except ClipRejectedError as error:
                        fates[error.reason] += 1
                    spent += time.process_time() - before
            except VideoRejectedError:
                continue
        clips = fates.total()
        cost = round(spent / clips / FRAMES * 1e3, 2)
        found[way] = {"clips": clips, "ms_per_frame": cost, **dict(sorted(fates.items()))}
    return found


def table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Prints one measurement."""
    reference = rows["sift"]
    print(
        f"\n{title}\n{'':<20}frames/s/core  times sift  residual px: median    p95  worst  rejected"
    )
    for way, row in rows.items():
        cost = row["ms_per_frame"]
        print(
            f"{way:<20}{1e3 / cost:>13.1f}{reference['ms_per_frame'] / cost:>12.1f}"
            f"{row['residual_px_median']:>21.3f}{row['residual_px_p95']:>7.3f}"
            f"{row['residual_px_worst_clip']:>7.3f}{row['rejected']:>10}"
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=4, help="clips per size (default 4)")
    parser.add_argument("--videos", type=Path, default=Path("../shared/data/videos"))
    given = parser.parse_args()
    result: dict[str, Any] = {"opencv": cv2.__version__, "machine": platform.machine()}
    with tempfile.TemporaryDirectory() as folder, threadpoolctl.threadpool_limits(1):
        for scale in SCALES:
            rows = known_shake(scale, given.scenes, Path(folder))
            size = f"{160 * scale}x{120 * scale}"
            table(f"{given.scenes} clips of {FRAMES} frames, {size}, known shake", rows)
            result[size] = rows
        if given.videos.is_dir():
            result["real clips"] = real(given.videos)
            print("\nreal clips")
            for way, fates in result["real clips"].items():
                print(f"{way:<20}{fates}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
