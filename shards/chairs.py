"""Chair CAD as rendered: `rendered_chairs/<id>/renders/image_000_p020_t011_r096.png`.

A chair has 62 views: 31 azimuths (t, degrees), at each of two elevations (p). VideoVAE (2018,
Section 5.1) makes four sequences of 16 of them: from the 16th azimuth on, either way round, at
either elevation. The background is white; the picture is cropped to a square around what is not, in
any view of the chair, with a small border: one square a chair, so that it turns in its place.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image as Pil

from shards.recipe import CHAIR_FRAMES, Recipe, WithinSplit
from shards.sources import Source
from shards.storage import open_store
from shards.video import Image, VideoRejectedError

AZIMUTHS, TILTS = 31, 2
ROTATIONS = ("forward", "backward")
"""The azimuth grows, or falls."""
BORDER = 1 / 16  # of the square's side, at each edge
_WHITE = 250  # from here on a pixel is background
_VIEW = re.compile(r"image_\d+_p(\d+)_t(\d+)_r\d+\.png")
_PATH = re.compile(rf"(?:(?:.*/)?([^/]+)/renders/){_VIEW.pattern}")

Views = dict[tuple[int, int], Image]
"""{(elevation, azimuth) in degrees: (S, S, 3)}"""


def taken(found: Sequence[Source], src: str) -> list[Source]:
    """The chairs whose views were `found`, sorted by id.

    Raises ValueError where a file is no view, or a chair lies in two folders.
    """
    folders: dict[str, list[Source]] = {}
    other = []
    for source in found:
        if _PATH.fullmatch(source.location):
            folders.setdefault(source.location.rpartition("/")[0], []).append(source)
        else:
            other.append(source.name)
    if other:
        raise ValueError(
            f"SRC {src}: {len(other)} of {len(found)} pictures are not named as Chair CAD's, "
            f"<id>/renders/image_000_p020_t011_r096.png: {', '.join(other[:3])}; take them away"
        )
    chairs: dict[str, Source] = {}
    for folder, views in folders.items():
        chair = folder.split("/")[-2]
        if chair in chairs:
            raise ValueError(
                f"SRC {src}: {chairs[chair].location} and {folder} are the same chair; leave one "
                "of them out"
            )
        size = sum(view.bytes or 0 for view in views)
        chairs[chair] = replace(
            views[0], name=chair, location=folder, bytes=size, attributes=(("chair", chair),)
        )
    return [chairs[chair] for chair in sorted(chairs)]


def read_views(source: Source, moved: Callable[[], None]) -> tuple[Views, str]:
    """(a chair's views as they were rendered, sha256 of all files in hex).

    Raises VideoRejectedError: `views_missing`, `not_picture`, or `views_differ` in size.
    """
    store, digest, views = open_store(source.location), hashlib.sha256(), Views()
    for name, _ in sorted(store.list()):
        parts = _VIEW.fullmatch(name)
        if parts is None:
            continue
        data = store.read(name)
        moved()
        digest.update(data)
        views[int(parts[1]), int(parts[2])] = _decoded(data, name)
    tilts = {tilt for tilt, _ in views}
    turns = {azimuth for _, azimuth in views}
    if not len(views) == len(tilts) * len(turns) == TILTS * AZIMUTHS == TILTS * len(turns):
        said = f"{len(views)} views of {len(tilts)} elevations and {len(turns)} azimuths"
        wanted = f"want {AZIMUTHS} azimuths at each of {TILTS}"
        raise VideoRejectedError("views_missing", f"{said}, {wanted}")
    shapes = {view.shape for view in views.values()}
    if len(shapes) > 1:
        raise VideoRejectedError("views_differ", f"sizes {sorted(shapes)}")
    return views, digest.hexdigest()


def sequences(
    views: Views, chair: str, recipe: Recipe
) -> Iterator[tuple[int, Image, dict[str, str], list[int]]]:
    """(number, (16, S, S, 3), attributes, azimuths) of the sequences that the recipe takes.

    Of a part: those that it has (`WithinSplit`), by the sha256 of the chair and the number. Raises
    VideoRejectedError `blank` where all is white.
    """
    tilts = sorted({tilt for tilt, _ in views})
    turns = sorted({azimuth for _, azimuth in views})
    small = _cropped(views, recipe.size_px)
    kept = _of_part(chair, len(tilts) * len(ROTATIONS), recipe.split)
    middle = AZIMUTHS // 2
    ways = (turns[middle:], turns[middle::-1])
    for number in kept:
        tilt, way = tilts[number // len(ROTATIONS)], number % len(ROTATIONS)
        azimuths = ways[way]
        assert len(azimuths) == CHAIR_FRAMES
        clip = np.stack([small[tilt, azimuth] for azimuth in azimuths])
        yield number, clip, {"rotation": ROTATIONS[way], "tilt": str(tilt)}, azimuths


def _of_part(chair: str, count: int, split: object) -> list[int]:
    if not isinstance(split, WithinSplit):
        return list(range(count))
    drawn = sorted(range(count), key=lambda n: hashlib.sha256(f"{chair} {n}".encode()).digest())
    tests = min(max(1, round(split.test_share * count)), count - 1)
    return sorted(drawn[:tests] if split.part == "test" else drawn[tests:])


def _decoded(data: bytes, name: str) -> Image:
    try:
        with Pil.open(io.BytesIO(data)) as picture:
            over = Pil.new("RGBA", picture.size, "white")
            over.alpha_composite(picture.convert("RGBA"))
            return np.asarray(over.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
        raise VideoRejectedError("not_picture", f"{name}: {error}") from None


def _cropped(views: Views, size_px: int) -> Views:
    """Every view's part in the chair's square, scaled to size_px; white beyond the picture."""
    darkest = np.minimum.reduce([view.min(2) for view in views.values()])
    rows, columns = (np.flatnonzero((darkest < _WHITE).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise VideoRejectedError("blank", "every view is white")
    height, width = (int(each[-1] - each[0]) + 1 for each in (rows, columns))
    side = round(max(height, width) / (1 - 2 * BORDER))
    top = int(rows[0]) - (side - height) // 2
    left = int(columns[0]) - (side - width) // 2
    beyond = (top + side - darkest.shape[0], left + side - darkest.shape[1])
    margin = max(0, -top, -left, *beyond)
    how = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
    small = Views()
    for key, view in views.items():
        wide = cv2.copyMakeBorder(
            view, *(margin,) * 4, borderType=cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
        square = wide[top + margin : top + margin + side, left + margin : left + margin + side]
        small[key] = np.asarray(cv2.resize(square, (size_px, size_px), interpolation=how), np.uint8)
    return small
