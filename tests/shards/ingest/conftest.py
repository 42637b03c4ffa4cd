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


def _walker(picture: Picture, x: float, stride: float, height: float, dark: int) -> None:
    """Somebody with swinging limbs, in the middle of the picture's height; stride: in radians."""

    def limb(down: float, angle: float, length: float, width: float, grey: int) -> None:
        top = (x, 60 + height * (down - 0.5))
        end = (top[0] + np.sin(angle) * length, top[1] + np.cos(angle) * length)
        points = [tuple(round(v * 16) for v in point) for point in (top, end)]
        cv2.line(picture, *points, grey, max(2, round(width)), cv2.LINE_AA, 4)

    for side in (1, -1):
        limb(0.5, side * 0.5 * np.sin(stride), height / 2, height / 10, dark)
        limb(0.2, -side * 0.5 * np.sin(stride), height / 3, height / 14, dark + 30)
    limb(0.2, 0, height / 3, height / 5, dark)
    limb(0.04, 0, height / 16, height / 7, dark + 60)


@pytest.fixture(scope="session")
def crossing() -> Callable[..., Picture]:
    """Renders somebody in front of a still, noisy background: (frames, 120, 160, 3)."""

    def render(
        frames: int,
        *,
        speed: float,
        x: float = 80.0,
        height: float = 70,
        dark: int = 50,
        seed: int = 0,
        zoom: float = 0.0,
    ) -> Picture:
        """speed: pixels a frame to the right. x: where they are in the first. zoom: per frame."""
        draw = np.random.default_rng(seed)
        wall = cv2.GaussianBlur(draw.normal(0, 1, (120, 160)), (0, 0), 4)
        wall = (wall / wall.std() * 6 + draw.uniform(120, 190)).round().astype(np.uint8)
        begun, out = draw.uniform(0, 2 * np.pi), []
        for t in range(frames):
            picture = wall.copy()
            stride = begun + 2 * np.pi * t / (30 - 3 * abs(speed))
            _walker(picture, x + speed * t, stride, height, dark)
            if zoom:
                turn = cv2.getRotationMatrix2D((80, 60), 0, 1 + zoom * t)
                picture = cv2.warpAffine(picture, turn, (160, 120), borderMode=cv2.BORDER_REFLECT)
            noisy = picture + draw.normal(0, 2, picture.shape)
            out.append(np.clip(noisy.round(), 0, 255).astype(np.uint8))
        return np.repeat(np.stack(out)[..., None], 3, -1)

    return render


@pytest.fixture(scope="session")
def avi() -> Callable[..., Path]:
    """Writes frames (T, H, W, 3) as MPEG-4 in AVI at 25 fps."""

    def write(path: Path, frames: Picture) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt, stream.thread_count, stream.bit_rate = "yuv420p", 1, 800_000
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
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
