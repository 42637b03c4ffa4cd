"""Sample video for a machine that has none: `python -m shards.demo DST`.

Real H.264 files, rendered from the two photographs that scikit-learn ships: a hand-held camera
shakes in front of a still scene while a ball bounces, rolls or floats through it. They go through
the ordinary ingest. The camera's every movement is known, so the stabiliser can be measured on
them. Equal arguments give equal pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
import numpy.typing as npt

from shards.ingest import ingest_command
from shards.recipe import RECIPES
from shards.stabilize import Matrix
from shards.video import Image

WIDTH, HEIGHT, FPS = 160, 120, 25
_MARGIN = 24
"""Pixels of scene beyond each edge of the view, for the camera to shake into."""

PLACES = (  # photograph, centre x, centre y, width of the view, all in its pixels
    ("china.jpg", 215, 190, 330),
    ("china.jpg", 455, 300, 260),
    ("flower.jpg", 310, 215, 330),
    ("flower.jpg", 305, 230, 230),
)
COLORS = ((222, 44, 48), (250, 210, 40), (40, 90, 225), (150, 60, 190))
MOTIONS = ("bounce", "roll", "float")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One video as a formula. Pixels are the frame's; time is in frames of 1/25 s.

    shake: 1.0 moves the camera by up to about 5 px and 1.5 degrees. scale: how many times as wide
    and as high as WIDTH x HEIGHT the pictures are; everything in them grows along.
    """

    place: int
    color: int
    motion: Literal["bounce", "roll", "float"]
    seed: int
    shake: float = 1.0
    ball: bool = True
    scale: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a frame."""
        return WIDTH * self.scale, HEIGHT * self.scale

    def camera(self, t: int) -> Matrix:
        """(3, 3): scene pixels (margin included) to frame pixels at time t: a similarity."""
        draw = np.random.default_rng((self.seed, 1))
        rates = draw.uniform(0.02, 0.16, (4, 3))
        phases = draw.uniform(0, 2 * np.pi, (4, 3))
        sway = np.sin(rates * t + phases).sum(1) / 3 * self.shake
        angle, zoom = sway[2] * 0.026, 1 + sway[3] * 0.02
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        x, y = WIDTH / 2 + _MARGIN, HEIGHT / 2 + _MARGIN
        to = (WIDTH / 2 + 5 * sway[0], HEIGHT / 2 + 5 * sway[1])
        grown = self.scale
        return np.array(
            [
                (c, -s, grown * (to[0] - c * x + s * y)),
                (s, c, grown * (to[1] - s * x - c * y)),
                (0, 0, 1),
            ],
            float,
        )

    def position(self, t: int) -> tuple[float, float, float]:
        """(x, y, radius) of the ball in the scene, before it grows by `scale`."""
        draw = np.random.default_rng((self.seed, 2))
        radius = draw.uniform(13, 17)
        period = draw.uniform(44, 70)
        phase = draw.uniform(0, 1)
        reach = HEIGHT / 2 - radius - 2
        x, y = WIDTH / 2 + _MARGIN, HEIGHT / 2 + _MARGIN
        across = np.sin(2 * np.pi * (t / period / 2 + phase))
        if self.motion == "bounce":
            u = (t / (period * 0.7) + phase) % 1
            return x + reach * across, y + reach - 2 * reach * 0.9 * 4 * u * (1 - u), radius
        if self.motion == "roll":
            return x + reach * across, y + reach, radius
        down = np.cos(2 * np.pi * (t / period / 1.3 + phase))
        return x + reach * across, y + reach * 0.7 * down, radius

    def frame(self, t: int) -> Image:
        """(height, width, 3) uint8: what the camera sees at time t."""
        scene = _background(self.place, self.scale)
        if self.ball:
            scene = scene.copy()
            x, y, radius = (self.scale * value for value in self.position(t))
            _draw_ball(scene, x, y, radius, COLORS[self.color])
        seen: Image = cv2.warpPerspective(scene, self.camera(t), self.size, flags=cv2.INTER_CUBIC)
        return seen

    def drift_px(self, to_first: npt.NDArray[np.float64], size_px: int) -> npt.NDArray[np.float64]:
        """(T, points): how far points of the still background stay from where frame 0 has them.

        to_first: (T, 3, 3), a stabiliser's transforms, in pixels of its size_px x size_px output.
        """
        width, height = self.size
        s = size_px / height  # the short side becomes the output's, the long one is cropped
        left = (round(width * 2 * s) - 2 * size_px) // 2 / 2
        to_output = np.array([(s, 0, (s - 1) / 2 - left), (0, s, (s - 1) / 2), (0, 0, 1)])
        start = np.linalg.inv(to_output @ self.camera(0))
        grid = np.arange(4.0, size_px, 8)
        points = np.stack(np.meshgrid(grid, grid), -1).reshape(1, -1, 2)
        drift = []
        for t, transform in enumerate(to_first):
            seen = cv2.perspectiveTransform(points, to_output @ self.camera(t) @ start)
            held = cv2.perspectiveTransform(seen, transform)
            drift.append(np.linalg.norm(held - points, axis=-1)[0])
        return np.array(drift)


def scenes(count: int, seed: int = 0) -> list[Scene]:
    """`count` different videos, going around places, colours and motions."""
    return [
        Scene(
            place=n % len(PLACES),
            color=(n // len(PLACES)) % len(COLORS),
            motion=MOTIONS[(n + n // len(PLACES)) % len(MOTIONS)],  # type: ignore[arg-type]
            seed=seed * 1_000_003 + n,
        )
        for n in range(count)
    ]


def encode(scene: Scene, path: Path, frames: int) -> None:
    """Writes `frames` frames of the scene as H.264 in MP4, in one thread: equal bytes each time."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        (stream.width, stream.height), stream.pix_fmt = scene.size, "yuv420p"
        stream.thread_count = 1
        # No lookahead: with it, x264's macroblock tree gives other bytes on every run.
        stream.options = {"crf": "12", "preset": "veryfast", "tune": "zerolatency"}
        for t in range(frames):
            picture = av.VideoFrame.from_ndarray(scene.frame(t), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@cache
def _background(place: int, grown: int) -> Image:
    from sklearn.datasets import load_sample_image

    name, x, y, width = PLACES[place]
    scale = WIDTH * grown / width
    size = ((WIDTH + 2 * _MARGIN) * grown, (HEIGHT + 2 * _MARGIN) * grown)
    photo = load_sample_image(name)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=how)
    shift = np.array([(1, 0, size[0] / 2 - x * scale), (0, 1, size[1] / 2 - y * scale)], float)
    background: Image = cv2.warpAffine(
        small, shift, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return background


def _draw_ball(scene: Image, x: float, y: float, radius: float, color: tuple[int, ...]) -> None:
    """A shaded ball with a white band that turns as it moves, its edge anti-aliased."""
    left, top = int(x - radius) - 2, int(y - radius) - 2
    side = int(2 * radius) + 5
    part = scene[top : top + side, left : left + side]
    down, right = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
    u, v = (right - x) / radius, (down - y) / radius
    distance = np.hypot(u, v)
    depth = np.sqrt(np.clip(1 - distance**2, 0, 1))
    turn = x / radius
    band = np.clip((0.28 - np.abs(u * np.sin(turn) - v * np.cos(turn))) * radius, 0, 1)[..., None]
    base = np.array(color, float) * (1 - band) + 250 * band
    light = 0.35 + 0.75 * np.clip(-0.45 * u - 0.6 * v + 0.66 * depth, 0, 1)
    shine = 190 * np.clip(-0.45 * u - 0.6 * v + 0.66 * depth, 0, 1) ** 24
    ball: npt.NDArray[np.float64] = np.clip(base * light[..., None] + shine[..., None], 0, 255)
    alpha = np.clip((1 - distance) * radius + 0.5, 0, 1)[..., None]
    part[:] = np.round(part * (1 - alpha) + ball * alpha).astype(np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m shards.demo", description=__doc__)
    parser.add_argument("destination", metavar="DST", help="the dataset to make")
    parser.add_argument("--videos", type=int, default=32, help="how many (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=16.7, help="of each (default %(default)s)")
    parser.add_argument(
        "--workers",
        type=int,
        # A cluster's other nodes do not see what is rendered on this one.
        default=1 if os.environ.get("RAY_ADDRESS") else None,
        help="as in shards.ingest; with RAY_ADDRESS this process alone, unless given",
    )
    parser.add_argument("--keep", metavar="FOLDER", help="keep the rendered videos there")
    given = parser.parse_args(arguments)
    if given.videos < 1 or given.seconds < 2:
        parser.error("--videos must be at least 1 and --seconds at least 2")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"rendering {given.videos} videos of {given.seconds:g} s", flush=True)
        for number, scene in enumerate(scenes(given.videos)):
            encode(scene, folder / f"demo_{number:03d}.mp4", round(given.seconds * FPS))
        return ingest_command(
            str(folder), given.destination, RECIPES["flickr"], workers=given.workers
        )


if __name__ == "__main__":
    sys.exit(main())
