"""Bouncing digits: handwritten digits that move across a dark frame, with a caption each.

The data of Sync-DRAW (2017, Sections 4.2, 4.3 and 4.5): 10 frames of 64 x 64 with one or two digits
of 28 x 28, each moving left and right or up and down; where two overlap, intensities add up to at
most 1. What the text leaves open is as in the authors' generator ("code"): a digit begins at a
place drawn uniformly from the 36 x 36 where it fits, moves 7.2 pixels a frame, first to the right
or down, moves before its first frame, and at a wall stops there for that frame and turns. The
code's captions have the two motions swapped; here they are true.

Clip n of a set is a function of the set's seed and n alone. Of the digits' pictures one in six is
for tests only; of every digit (of every ordered pair of digits) half of the motions are in no
training caption, "unseen" is made of those; "all" has every motion of the training pictures, for
those who judge. `shards.generated` makes datasets of such a set.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Part = Literal["train", "test", "unseen", "all"]
_PARTS = ("train", "test", "unseen", "all")
GLYPH = 28
MOTIONS = ("left and right", "up and down")
_STEP = 0.2  # of the way that is free, a frame: the code's speed, 7.2 of 36 pixels
_HELD_OUT = 6  # one picture in so many is for tests
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """Pictures of digits. pictures: uint8 (N, 28, 28), bright on dark. digits: uint8 (N,), 0 to 9.

    name: where they are from.
    """

    pictures: UInt8
    digits: UInt8
    name: str

    def of(self, digit: int, part: Part) -> NDArray[np.int64]:
        """The pictures of a digit that a part may show, by their places, ascending."""
        places = np.flatnonzero(self.digits == digit)
        held_out = np.arange(len(places)) % _HELD_OUT == 0
        chosen: NDArray[np.int64] = places[~held_out if part in ("train", "all") else held_out]
        return chosen


@dataclass(frozen=True, kw_only=True)
class Bouncing:
    """A set of clips. count: how many. digits: 1 or 2 in each. overlap: "add", clipped at 255, as
    the papers say, or "max", as the code does."""

    digits: int = 1
    part: Part = "train"
    count: int = 12_000
    frames: int = 10
    size: int = 64
    overlap: Literal["add", "max"] = "add"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.digits not in (1, 2):
            raise ValueError(f"digits={self.digits!r}: must be 1 or 2")
        for name, least in (("count", 1), ("frames", 1), ("size", GLYPH)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be {least} or more")

    @cached_property
    def scenes(self) -> list[tuple[tuple[int, int], ...]]:
        """What a clip of this part can show: for every digit in it (digit, place in MOTIONS)."""
        train = _training_scenes(self.digits, self.seed)
        if self.part in ("train", "test"):
            return train
        every = set(product(product(range(10), range(2)), repeat=self.digits))
        return sorted(every - set(train) if self.part == "unseen" else every)

    def clip(self, n: int, glyphs: Glyphs) -> tuple[UInt8, dict[str, Any]]:
        """(uint8 (T, H, W, 1), what it shows) of clip n."""
        place = _PARTS.index(self.part)
        draw = np.random.Generator(np.random.Philox(key=[self.seed, 4 * n + place]))
        scene = self.scenes[int(draw.integers(len(self.scenes)))]
        video = np.zeros((self.frames, self.size, self.size), np.uint8)
        chosen = []
        for digit, motion in scene:
            among = glyphs.of(digit, self.part)
            chosen.append(int(among[int(draw.integers(len(among)))]))
            paths = trajectory(draw.random(2), motion, self.frames, self.size - GLYPH)
            for frame, (top, left) in zip(video, paths, strict=True):
                view = frame[top : top + GLYPH, left : left + GLYPH]
                picture = glyphs.pictures[chosen[-1]]
                if self.overlap == "max":
                    np.maximum(view, picture, out=view)
                else:
                    view += np.minimum(picture, 255 - view)
        note = {
            "caption": caption(scene),
            "digits": [digit for digit, _ in scene],
            "motions": [motion for _, motion in scene],
            "pictures": chosen,
            "n": n,
        }
        return video[..., None], note


def caption(scene: tuple[tuple[int, int], ...]) -> str:
    """As the 2017 paper writes it: `digit 0 is moving left and right and digit 1 is ...`."""
    return " and ".join(f"digit {digit} is moving {MOTIONS[motion]}" for digit, motion in scene)


def scene_of(text: str) -> tuple[tuple[int, int], ...]:
    """What a caption says; the inverse of `caption`. Raises ValueError for any other sentence."""
    found = re.findall(rf"digit (\d) is moving ({'|'.join(MOTIONS)})", text)
    scene = tuple((int(digit), MOTIONS.index(motion)) for digit, motion in found)
    if not scene or caption(scene) != text:
        raise ValueError(f"caption {text!r}: none of bouncing digits, as {caption(((3, 1),))!r}")
    return scene


def words(scenes: list[tuple[tuple[int, int], ...]]) -> list[str]:
    """The words of all captions, sorted."""
    return sorted({word for scene in scenes for word in caption(scene).split()})


def trajectory(
    start: NDArray[np.float64], motion: int, frames: int, room: int
) -> list[tuple[int, int]]:
    """(top, left) of a digit in every frame. start: (row, column), each in [0, 1) of `room`."""
    at, axis, velocity = start.copy(), 1 - motion, _STEP
    out = []
    for _ in range(frames):
        at[axis] += velocity
        if not 0 <= at[axis] <= 1:
            at[axis] = min(max(at[axis], 0), 1)
            velocity = -velocity
        top, left = (int(room * value) for value in at)
        out.append((top, left))
    return out


def _training_scenes(digits: int, seed: int) -> list[tuple[tuple[int, int], ...]]:
    """Half of all scenes. Of one digit one motion, each motion for five digits; of an ordered pair
    of digits two scenes, one for each motion of the first, with the second's drawn."""
    draw = np.random.Generator(np.random.Philox(key=[seed, 3]))
    if digits == 1:
        order = draw.permutation(10)
        return sorted(((int(digit), place % 2),) for place, digit in enumerate(order))
    out = []
    for first, second in product(range(10), repeat=2):
        chosen = draw.integers(2, size=2)
        out += [((first, motion), (second, int(chosen[motion]))) for motion in range(2)]
    return sorted(out)


def find_glyphs(folder: str | None) -> Glyphs:
    """The digits in a folder of IDX files, gzipped or not (MNIST's); without one scikit-learn's.

    scikit-learn ships 1,797 of 8 x 8, here enlarged bilinearly to 20 x 20 within 28 x 28, as
    MNIST's lie. Raises ValueError where the files are missing, or not such files.
    """
    if folder is None:
        return _shipped()
    files = sorted(Path(folder).expanduser().glob(f"*{_IMAGES}*"))
    if not files:
        raise ValueError(f"{folder}: no file named *{_IMAGES} or *{_IMAGES}.gz, as MNIST's are")
    pictures, digits = [], []
    for file in files:
        beside = file.with_name(file.name.replace(_IMAGES, _LABELS))
        if not beside.is_file():
            raise ValueError(f"{file}: there are no labels beside it; {beside.name} is missing")
        pictures.append(_idx(file, 3))
        digits.append(_idx(beside, 1))
        if len(pictures[-1]) != len(digits[-1]):
            raise ValueError(f"{file}: {len(pictures[-1])} pictures and {len(digits[-1])} labels")
    if {each.shape[1:] for each in pictures} != {(GLYPH, GLYPH)}:
        raise ValueError(f"{folder}: its pictures are not all of {GLYPH} x {GLYPH}")
    found = np.concatenate(digits)
    if set(found.tolist()) != set(range(10)):
        raise ValueError(f"{folder}: its labels are not the digits 0 to 9")
    return Glyphs(pictures=np.concatenate(pictures), digits=found, name="idx")


def _idx(file: Path, axes: int) -> UInt8:
    """An IDX file of unsigned bytes: 0 0 8 <axes>, the axes' lengths, big-endian, then the data."""
    data = file.read_bytes()
    try:
        data = gzip.decompress(data) if file.suffix == ".gz" else data
        if data[:4] != bytes([0, 0, 8, axes]):
            raise ValueError(f"not an IDX file of bytes with {axes} axes")
        lengths = np.frombuffer(data, ">u4", axes, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(lengths)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file}: {error}") from None


def _shipped() -> Glyphs:
    import cv2
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = np.zeros((len(found.target), GLYPH, GLYPH), np.uint8)
    for place, image in enumerate(found.images):
        large = cv2.resize(image.astype(np.float32), (20, 20), interpolation=cv2.INTER_LINEAR)
        pictures[place, 4:24, 4:24] = np.round(large * (255 / 16))
    return Glyphs(pictures=pictures, digits=found.target.astype(np.uint8), name="scikit-learn")
