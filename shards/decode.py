"""A member's bytes to the pixels of a clip, in place."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shards.manifest import ClipFormat
from shards.quarantine import BadSampleError

UInt8 = NDArray[np.uint8]
ENCODINGS = ("jpg", "u8")


def check_encoding(clip: ClipFormat) -> None:
    """Raises ValueError when clips of this format cannot be decoded here."""
    if clip.encoding not in ENCODINGS:
        raise ValueError(f"clip.encoding: {clip.encoding!r} must be one of {', '.join(ENCODINGS)}")
    if clip.encoding == "jpg" and clip.channels not in (1, 3):
        raise ValueError(f"clip.channels: {clip.channels} must be 1 or 3 for jpg")


def decode_into(data: bytes | UInt8, video_thwc: UInt8, encoding: str) -> None:
    """Writes the clip in `data` to `video_thwc`, uint8 (T, H, W, C), C-contiguous.

    `jpg` is a vertical strip of the frames, `u8` the raw pixels. Releases the GIL while it
    decodes. Raises BadSampleError when `data` is no such clip.
    """
    frames, height, width, channels = video_thwc.shape
    if encoding == "u8":
        if len(data) != video_thwc.nbytes:
            raise BadSampleError(f"{len(data)} bytes, a raw clip has {video_thwc.nbytes}")
        video_thwc.reshape(-1)[:] = np.frombuffer(data, dtype=np.uint8)
        return
    try:
        rows, columns, _, _ = simplejpeg.decode_jpeg_header(data)
        if (rows, columns) != (frames * height, width):
            raise BadSampleError(f"a {columns}x{rows} jpeg is no strip of {video_thwc.shape}")
        colours = "RGB" if channels == 3 else "GRAY"
        simplejpeg.decode_jpeg(data, colours, buffer=video_thwc.reshape(rows, columns, channels))
    except ValueError as error:
        raise BadSampleError(f"not a jpeg that decodes: {error}") from None
