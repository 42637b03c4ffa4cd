"""A picture file as one frame of a clip, whatever its size, mode and orientation.

It needs Pillow and NumPy alone, because it travels with registered models that begin from an image.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from PIL import ImageOps, UnidentifiedImageError

Frame = npt.NDArray[np.uint8]

_LEVELS = 257  # 65,535 / 255
_GREY_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_still(data: bytes, size_px: int, *, where: str) -> Frame:
    """(size_px, size_px, 3) uint8: the centre square of the picture in the file's bytes `data`.

    Turned as its EXIF orientation says. A smaller scale is the mean over each pixel's area, as at
    ingest; a larger one is bicubic. What is transparent shows white; 16-bit grey keeps its range, a
    float picture's is 0 to 1; of an animation the first picture is taken.
    Raises ValueError, beginning with `where`, for what is no picture, damaged or cut off.
    """
    try:
        with warnings.catch_warnings(), Pil.open(io.BytesIO(data)) as picture:
            warnings.simplefilter("ignore")  # what cannot be read raises
            picture.load()
            upright = _rgb(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError:
        start = "it is empty" if not data else f"it begins with {data[:8]!r}"
        raise ValueError(f"{where}: not a picture that Pillow can read; {start}") from None
    except Exception as error:  # decoders of broken files raise of every kind
        raise ValueError(f"{where}: a damaged picture ({error}); export it anew") from None
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = upright.crop((left, top, left + side, top + side))
    how = Pil.Resampling.BOX if side > size_px else Pil.Resampling.BICUBIC
    return np.array(square.resize((size_px, size_px), how))


def _rgb(picture: Pil.Image) -> Pil.Image:
    if picture.mode in _GREY_DEEP or picture.mode == "F":
        levels = np.asarray(picture).astype(np.float64)
        deep = levels * 255 if picture.mode == "F" else levels / _LEVELS
        if not (deep.min() >= 0 and deep.max() < 255.5):
            valid = "0 to 1" if picture.mode == "F" else "0 to 65535"
            raise ValueError(f"its levels are {levels.min():g} to {levels.max():g}, not {valid}")
        picture = Pil.fromarray(deep.round().astype(np.uint8))
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Pil.alpha_composite(Pil.new("RGBA", over.size, "white"), over)
    return picture.convert("RGB")
