"""Videos made on the spot, really encoded, whose every frame carries its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def still_scene(width: int, height: int, t: int) -> Picture:
    """A picture full of corners, brighter at the top left, with t in its lowest eighth.

    There stand 12 blocks: block n is white where bit n of t is set.
    """
    coarse = np.random.default_rng(5).integers(40, 200, (height // 8 + 1, width // 8 + 1, 3))
    picture = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
    bright = picture[: height // 2, : width // 2]
    bright[:] = 255 - (255 - bright) // 4
    for bit in range(12):
        block = slice(bit * width // 12, (bit + 1) * width // 12)
        picture[height - height // 8 :, block] = 255 * (t >> bit & 1)
    return picture


@pytest.fixture(scope="session")
def read_number() -> Callable[[Picture], int]:
    """The t that `still_scene` put into a picture, whatever its scale."""

    def read(picture: Picture) -> int:
        height, width = picture.shape[:2]
        row = picture[height - height // 16, :, 0]
        return sum(int(row[int((bit + 0.5) * width / 12)] > 127) << bit for bit in range(12))

    return read


@pytest.fixture(scope="session")
def film() -> Callable[..., Path]:
    """Writes an H.264 file."""

    def write(
        path: Path,
        times_ms: Sequence[int],
        *,
        size: tuple[int, int] = (192, 144),
        pixels: str = "yuv420p",
        turned: int = 0,
    ) -> Path:
        """Frame n is shown at times_ms[n]; `turned` degrees counter-clockwise."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, pixels
            stream.thread_count = 1
            stream.codec_context.time_base = Fraction(1, 1000)
            stream.options = {"crf": "12", "preset": "ultrafast", "g": "12"}
            if turned:
                stream.set_display_rotation(turned)
            for n, time in enumerate(times_ms):
                frame = av.VideoFrame.from_ndarray(still_scene(*size, n), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def panning() -> Callable[..., Path]:
    """Writes a video of a photograph-like scene that a camera slowly pans over."""

    def write(path: Path, frames: int, *, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(seed)
        scene = cv2.resize(
            draw.integers(0, 255, (24, 40, 3), np.uint8), (400, 240), interpolation=cv2.INTER_CUBIC
        )
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
            stream.thread_count = 1
            stream.options = {"crf": "12", "preset": "ultrafast"}
            for t in range(frames):
                x = 60 + round(8 * np.sin(t / 9))
                view = np.ascontiguousarray(scene[60:132, x : x + 96])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write
