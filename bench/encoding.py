"""How a 32x64x64 clip should be stored: bytes, cost and what is lost: `python bench/encoding.py`.

Clips come from an ingest of real videos (`--videos FOLDER`), or of rendered ones where there are
none, stored raw. Luma and chroma are compared at full resolution. "fine chroma" is the share of the
chroma's energy in the finer half of the frequencies that is still there: what a network that learns
64-px colour could see. Writes bench/results/encoding.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image as Pil

from shards.demo import FPS, encode, scenes
from shards.ingest import ingest
from shards.manifest import load_manifest
from shards.preview import some_clips
from shards.recipe import RECIPES
from shards.storage import open_store
from shards.video import Image

RESULT = Path(__file__).parent / "results" / "encoding.json"
HOURS, FRAMES = 5_000, 32
Codec = tuple[Callable[[Image], bytes], Callable[[bytes], Image]]


def jpeg(quality: int, subsampling: str) -> Codec:
    """A strip through simplejpeg, as `shards.cut` writes it."""
    return (
        lambda strip: simplejpeg.encode_jpeg(
            strip, quality=quality, colorspace="RGB", colorsubsampling=subsampling, fastdct=False
        ),
        lambda data: simplejpeg.decode_jpeg(data, colorspace="RGB"),
    )


def pillow(kind: str, **options: Any) -> Codec:
    """A strip through Pillow."""

    def write(strip: Image) -> bytes:
        file = io.BytesIO()
        Pil.fromarray(strip).save(file, kind, **options)
        return file.getvalue()

    return write, lambda data: np.asarray(Pil.open(io.BytesIO(data)).convert("RGB"))


CODECS: dict[str, Codec] = {
    "u8": (lambda strip: strip.tobytes(), lambda d: np.frombuffer(d, np.uint8).reshape(-1, 64, 3)),
    "JPEG q90 4:2:0": jpeg(90, "420"),
    "JPEG q95 4:2:0": jpeg(95, "420"),
    "JPEG q90 4:4:4": jpeg(90, "444"),
    "JPEG q95 4:4:4": jpeg(95, "444"),
    "WebP q90": pillow("WEBP", quality=90, method=2),
    "PNG": pillow("PNG", compress_level=3),
}


def clips_of(videos: Path | None) -> list[Image]:
    """Strips (2048, 64, 3)."""
    with tempfile.TemporaryDirectory() as temporary:
        src = videos or Path(temporary) / "videos"
        if videos is None:
            src.mkdir()
            for number, scene in enumerate(scenes(8)):
                encode(dataclasses.replace(scene, scale=2), src / f"{number}.mp4", 2 * 32 + FPS)
        recipe = dataclasses.replace(RECIPES["flickr"], encoding="u8", stabilizer="lk")
        ingest(str(src), f"{temporary}/d", recipe, workers=1)
        store = open_store(f"{temporary}/d")
        return [clip.reshape(-1, 64, 3) for clip, _ in some_clips(store, load_manifest(store), 64)]


def planes(strip: Image) -> npt.NDArray[np.float32]:
    """(2048, 64, 3): Y, Cr, Cb, not rounded."""
    made: npt.NDArray[np.float32] = cv2.cvtColor(strip.astype(np.float32), cv2.COLOR_RGB2YCrCb)
    return made


def fine_energy(chroma: npt.NDArray[np.float32]) -> float:
    """Of (2048, 64, 2), per frame, in the frequencies above half of the highest, either axis."""
    spectrum = np.abs(np.fft.fft2(chroma.reshape(-1, 64, 64, 2), axes=(1, 2))) ** 2
    high = np.abs(np.fft.fftfreq(64)) > 0.25
    return float(spectrum[:, high[:, None] | high[None, :]].sum())


def measure(codec: Codec, strips: list[Image]) -> dict[str, float]:
    """Means over the clips; times are of the CPU."""
    write, read = codec
    before = time.process_time()
    stored = [write(strip) for strip in strips]
    written = time.process_time()
    shown = [read(data) for data in stored]
    done = time.process_time()
    pairs = [(planes(a), planes(b)) for a, b in zip(strips, shown, strict=True)]
    errors = np.array([np.square(a - b).mean((0, 1)) for a, b in pairs]).mean(0)
    psnr = 10 * np.log10(255**2 / np.maximum(errors, 1e-9))
    fine = [sum(fine_energy(pair[n][..., 1:]) for pair in pairs) for n in (0, 1)]
    size = float(np.mean([len(data) for data in stored]))
    return {
        "bytes": round(size),
        "encode_ms": round((written - before) / len(strips) * 1e3, 2),
        "decode_ms": round((done - written) / len(strips) * 1e3, 2),
        "luma_db": round(float(psnr[0]), 1),
        "chroma_db": round(float(psnr[1:].mean()), 1),
        "fine_chroma_share": round(fine[1] / fine[0], 2),
        "tb_for_5000_h": round(size * HOURS * 3600 * FPS / FRAMES / 1e12, 2),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=Path("../shared/data/videos"))
    given = parser.parse_args()
    real = given.videos.is_dir()
    strips = clips_of(given.videos if real else None)
    print(f"\n{len(strips)} {'real' if real else 'rendered'} clips")
    head = ("bytes", "enc ms", "dec ms", "luma dB", "chroma dB", "fine chroma", "TB/5000 h")
    print(f"{'':<16}" + "".join(f"{name:>12}" for name in head))
    rows = {}
    for name, codec in CODECS.items():
        measure(codec, strips[:2])  # warm
        rows[name] = measure(codec, strips)
        print(f"{name:<16}" + "".join(f"{value:>12}" for value in rows[name].values()), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    result = {"clips": len(strips), "real": real, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
