"""Look at a dataset: `python -m shards.preview DATASET [--out FOLDER]`.

Writes `clips.png`, a contact sheet with one clip per row (every fourth frame, and at the right how
much each pixel moves over time: black is still), `clips.gif`, the same clips playing, and
`clips.html`, one page with each clip playing beside where it came from. The page needs no other
file.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image as Pil

from shards.decode import decode_into
from shards.generated import whole
from shards.manifest import Manifest, load_manifest
from shards.storage import Store, open_store
from shards.tarfmt import Member, parse_index
from shards.video import Image

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; margin: 2rem; background: #fafafa; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }}
figure {{ margin: 0; padding: .75rem; background: #fff; border: 1px solid #ddd }}
img {{ width: 100%; image-rendering: pixelated; display: block; margin-bottom: .5rem }}
dl {{ display: grid; grid-template-columns: auto 1fr; gap: 0 .75rem; margin: 0; font-size: 12px }}
dt {{ color: #777 }} dd {{ margin: 0; overflow-wrap: anywhere }}
@media (prefers-color-scheme: dark) {{
body {{ background: #151515; color: #ddd }}
figure {{ background: #1e1e1e; border-color: #333 }} }}
</style>
<h1>{title}</h1>
<p>{about}</p>
<main>
{figures}
</main>
</html>
"""
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
                note = {"source": samples[n].key}  # of what others made, maybe all there is
                if member := notes.get(samples[n].key):
                    note |= json.loads(_read(store, shard.tar, member))
                yield clip, note


def contact_sheet(clips: list[Image]) -> Image:
    """(rows, columns, 3): a row per clip, its last picture the movement of each pixel, times 4."""
    rows = []
    for clip in clips:
        movement = np.abs(np.diff(clip.astype(np.int16), axis=0)).mean((0, 3)) * 4
        still = np.repeat(np.clip(movement, 0, 255).astype(np.uint8)[..., None], 3, -1)
        rows.append(np.hstack([*clip[::EVERY], clip[-1], still]))
    return np.vstack(rows)


def write_gif(clips: list[Image], to: Path | IO[bytes], fps: float) -> None:
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
    first.save(to, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def page(shown: list[tuple[Image, Any]], manifest: Manifest, title: str) -> str:
    """One HTML document: every clip as an animation, with its provenance."""
    counts = manifest.counts
    about = f"{manifest.samples} clips of {counts.get('videos_kept', '?')} videos, "
    about += f"{manifest.clip.detail}; version {manifest.version}; {len(shown)} are shown"
    return PAGE.format(
        title=html.escape(title),
        about=html.escape(about),
        figures="\n".join(_figure(clip, note, manifest.clip.fps) for clip, note in shown),
    )


def _figure(clip: Image, note: Any, fps: float) -> str:
    file = io.BytesIO()
    write_gif([clip], file, fps)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in _flat(note).items()
    )
    picture = f'<img alt="{html.escape(str(note["source"]))}" src="data:image/gif;base64,{data}">'
    return f"<figure>{picture}<dl>{rows}</dl></figure>"


def _flat(note: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested fields as `stabilizer.backend`."""
    flat: dict[str, str] = {}
    for name, value in note.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


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
        store = whole(store, manifest)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    some = some_clips(store, manifest, max(1, given.clips))
    shown = [(clip.repeat(3 // clip.shape[-1], axis=-1), note) for clip, note in some]  # grey, too
    clips = [clip for clip, _ in shown]
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(contact_sheet(clips)).save(folder / "clips.png")
    write_gif(clips, folder / "clips.gif", manifest.clip.fps)
    title = store.location.rpartition("/")[2] or store.location
    (folder / "clips.html").write_text(page(shown, manifest, title))
    for number, (_, note) in enumerate(shown):
        said = f"{number:3d}  {note['source']} {note.get('entry', '')}"
        if "start_s" in note:
            said += f" at {note['start_s']:.2f} s"
        if quality := note.get("stabilizer"):
            said += f"; moved up to {quality['max_shift_px']} px"
            said += f", covers {quality['min_coverage']:.0%}"
        print(said)
    print(f"wrote clips.png, clips.gif and clips.html to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
