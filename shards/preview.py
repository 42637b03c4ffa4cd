"""Look at a dataset: `python -m shards.preview DATASET [--out FOLDER]`.

Writes `clips.png`, a contact sheet with one clip per row (every fourth frame, and at the right how
much each pixel moves over time: black is still), and `clips.gif`, the same clips playing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pil

from shards.decode import decode_into
from shards.manifest import Manifest, load_manifest
from shards.storage import Store, open_store
from shards.tarfmt import Member, parse_index
from shards.video import Image

EVERY = 4
"""The sheet shows each so-many-th frame of a clip."""


def some_clips(store: Store, manifest: Manifest, count: int) -> Iterator[tuple[Image, Any]]:
    """(clip, provenance) of `count` samples, evenly spaced over the dataset."""
    total = manifest.samples
    wanted = sorted({n * total // min(count, total) for n in range(min(count, total))})
    before = 0
    for shard in manifest.shards:
        here = [n - before for n in wanted if before <= n < before + shard.samples]
        before += shard.samples
        if here:
            where = f"{store.location}/{shard.index}"
            members = parse_index(store.read(shard.index), where=where)
            samples = [m for m in members if m.extension == manifest.clip.encoding]
            notes = {m.key: m for m in members if m.extension == "json"}
            for n in here:
                clip = np.empty(manifest.clip.shape, np.uint8)
                decode_into(_read(store, shard.tar, samples[n]), clip, manifest.clip.encoding)
                yield clip, json.loads(_read(store, shard.tar, notes[samples[n].key]))


def contact_sheet(clips: list[Image]) -> Image:
    """(rows, columns, 3): a row per clip, its last picture the movement of each pixel, times 4."""
    rows = []
    for clip in clips:
        movement = np.abs(np.diff(clip.astype(np.int16), axis=0)).mean((0, 3)) * 4
        still = np.repeat(np.clip(movement, 0, 255).astype(np.uint8)[..., None], 3, -1)
        rows.append(np.hstack([*clip[::EVERY], clip[-1], still]))
    return np.vstack(rows)


def write_gif(clips: list[Image], path: Path, fps: float) -> None:
    """The clips side by side, playing, twice enlarged. `clips` have equal shapes."""
    across = max(1, round(len(clips) ** 0.5))
    rows = [clips[n : n + across] for n in range(0, len(clips), across)]
    rows[-1] = rows[-1] + [np.zeros_like(clips[0])] * (across - len(rows[-1]))
    together = np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
    large = [
        Pil.fromarray(cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
        for frame in together
    ]
    # One palette for all frames: a palette each would flicker.
    palette = Pil.fromarray(np.vstack(list(together[:: len(together) // 2]))).quantize(256)
    first, *rest = (frame.quantize(palette=palette) for frame in large)
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def _read(store: Store, tar: str, member: Member) -> bytes:
    return store.read_range(tar, member.offset, member.size)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m shards.preview", description=__doc__)
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--out", default=".", metavar="FOLDER", help="where to write (default: .)")
    parser.add_argument("--clips", type=int, default=16, help="how many (default %(default)s)")
    given = parser.parse_args(arguments)
    store = open_store(given.dataset)
    try:
        manifest = load_manifest(store)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = list(some_clips(store, manifest, max(1, given.clips)))
    clips = [clip for clip, _ in shown]
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(contact_sheet(clips)).save(folder / "clips.png")
    write_gif(clips, folder / "clips.gif", manifest.clip.fps)
    for number, (_, note) in enumerate(shown):
        quality = note["stabilizer"]
        print(
            f"{number:3d}  {note['source']} at {note['start_s']:.2f} s; moved up to "
            f"{quality['max_shift_px']} px, covers {quality['min_coverage']:.0%}"
        )
    print(f"wrote {folder / 'clips.png'} and {folder / 'clips.gif'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
