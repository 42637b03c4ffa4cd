"""A clip's pixels on their way into a shard: opened, fitted into a square, made grey, encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, BinaryIO

import cv2
import numpy as np
import simplejpeg

from shards.recipe import Recipe
from shards.scene import DECODED_PX
from shards.stabilize import SUPERSAMPLE, registration_px, stabilize
from shards.video import Image, Picture, Video


def opened(file: BinaryIO | str, recipe: Recipe) -> Video:
    """The video from its beginning, its pictures of the sizes that the recipe needs."""
    if not isinstance(file, str):
        file.seek(0)
    return Video(
        file,
        fps=recipe.fps,
        canvas_px=recipe.size_px * (SUPERSAMPLE if recipe.fit == "crop" else 1),
        gray_px=registration_px(recipe.stabilizer),
        scene_px=DECODED_PX,
        scene_every=recipe.frames if recipe.scene else 0,
        fit=recipe.fit,
    )


def pixels_of(pictures: Sequence[Picture], recipe: Recipe) -> tuple[Image, dict[str, Any] | None]:
    """((T, S, S, 3) uint8, how it was held still, for its provenance; None if it was not).

    Raises ClipRejectedError as `shards.stabilize` does.
    """
    if recipe.fit != "crop":
        return fitted(pictures, recipe.size_px), None
    steady = stabilize(pictures, backend=recipe.stabilizer, size_px=recipe.size_px)
    if recipe.stabilizer == "none":
        return steady.clip, None
    quality = dataclasses.asdict(steady.quality)
    return steady.clip, {"backend": recipe.stabilizer, "opencv": cv2.__version__, **quality}


def fitted(pictures: Sequence[Picture], size_px: int) -> Image:
    """(T, size_px, size_px, 3) uint8: each picture's canvas in the middle of a black square."""
    clip = np.zeros((len(pictures), size_px, size_px, 3), np.uint8)
    for square, picture in zip(clip, pictures, strict=True):
        height, width = picture.canvas.shape[:2]
        top, left = (size_px - height) // 2, (size_px - width) // 2
        square[top : top + height, left : left + width] = picture.canvas
    return clip


def grey(clip: Image) -> Image:
    """(T, S, S, 1) of (T, S, S, 3) or of itself: the luma of BT.601, rounded."""
    if clip.shape[-1] == 1:
        return clip
    frames, height, width, _ = clip.shape
    tall = cv2.cvtColor(clip.reshape(frames * height, width, 3), cv2.COLOR_RGB2GRAY)
    return np.asarray(tall, np.uint8).reshape(frames, height, width, 1)


def encode_clip(clip: Image, recipe: Recipe) -> bytes:
    """(T, S, S, C) uint8 as the recipe's member: a vertical JPEG strip, or the raw bytes."""
    if recipe.encoding == "u8":
        return clip.tobytes()
    frames, height, width, channels = clip.shape
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(clip.reshape(frames * height, width, channels)),
        quality=recipe.jpeg_quality,
        colorspace="RGB" if channels == 3 else "GRAY",
        colorsubsampling="444" if channels == 3 else "Gray",
        fastdct=False,
    )
    return jpeg
