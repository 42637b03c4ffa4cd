"""Pictures of every kind, written by Pillow, whose pixels are known."""

import io
import re
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from shards.still import read_still


def _file(picture, kind="PNG", **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _quarters(height=8, width=8):
    """Red, green over blue, white: every turn of it is another picture."""
    pixels = np.zeros((height, width, 3), np.uint8)
    half, middle = height // 2, width // 2
    pixels[:half, :middle, 0] = 255
    pixels[:half, middle:, 1] = 255
    pixels[half:, :middle, 2] = 255
    pixels[half:, middle:] = 255
    return pixels


def _read(data, size=8):
    return read_still(data, size, where="x.png")


def test_read_still_of_the_size_asked_for_is_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (_read(_file(Image.fromarray(pixels))) == pixels).all()


def test_read_still_of_twice_the_size_is_the_mean_of_two_by_two():
    pixels = 4 * np.random.default_rng(0).integers(0, 64, (16, 16, 3), dtype=np.uint8)
    means = pixels.reshape(8, 2, 8, 2, 3).astype(int).sum((1, 3)) // 4
    assert np.abs(_read(_file(Image.fromarray(pixels))) - means).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(8, 21), (21, 8)])
def test_read_still_takes_the_centre_square(height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:8, 6:14] = 200 if height == 8 else 0
    pixels[6:14, :8] = 200 if width == 8 else pixels[6:14, :8]
    assert (_read(_file(Image.fromarray(pixels))) == 200).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 1), (3, 5), (65, 64)])
def test_read_still_of_any_size_fills_the_frame(height, width):
    frame = _read(_file(Image.new("RGB", (width, height), (10, 20, 30))), size=64)
    assert frame.shape == (64, 64, 3)
    assert (frame == (10, 20, 30)).all()


def test_read_still_of_every_orientation_is_upright():
    upright = Image.fromarray(_quarters())
    stored = {  # how a camera that says so has the sensor's rows
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }
    for orientation, picture in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert (_read(_file(picture, exif=exif)) == _quarters()).all(), orientation


def _grey(levels, dtype):
    return Image.fromarray(np.full((8, 8), levels, dtype))


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (_file(_grey(77, np.uint8)), (77, 77, 77)),
        (_file(Image.new("1", (8, 8), 1)), (255, 255, 255)),
        (_file(Image.new("LA", (8, 8), (0, 255))), (0, 0, 0)),
        (_file(Image.new("RGBA", (8, 8), (0, 100, 0, 0))), (255, 255, 255)),
        (_file(Image.new("RGBA", (8, 8), (0, 100, 200, 255))), (0, 100, 200)),
        (_file(Image.new("RGB", (8, 8), (9, 99, 199)).quantize(4)), (9, 99, 199)),
        (_file(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
        (_file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        (_file(_grey(65535, np.uint16)), (255, 255, 255)),
        (_file(_grey(257 * 40, np.uint16)), (40, 40, 40)),
        (_file(_grey(257 * 40, np.int32), "TIFF"), (40, 40, 40)),
        (_file(_grey(0.6, np.float32), "TIFF"), (153, 153, 153)),
        (_file(Image.new("RGB", (8, 8), (5, 6, 7)), "BMP"), (5, 6, 7)),
        (_file(Image.new("RGB", (8, 8), (255, 0, 0)), "WEBP", lossless=True), (255, 0, 0)),
    ],
)
def test_read_still_of_every_mode_shows_its_colour(data, colour):
    assert np.abs(_read(data).astype(int) - colour).max() <= 1


def test_read_still_of_a_palette_with_a_transparent_colour_shows_it_white():
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 200, 0, 0])
    assert (_read(_file(picture, transparency=1)) == 255).all()


def test_read_still_of_an_animation_is_its_first_picture():
    frames = [Image.new("RGB", (8, 8), (0, 0, level)) for level in (250, 100)]
    data = _file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (_read(data) == (0, 0, 250)).all()


PNG = _file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)))
JPEG = _file(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)), "JPEG"
)
HEADER = b"IHDR" + struct.pack(">II", 60_000, 60_000) + PNG[24:29]
BOMB = PNG[:12] + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + PNG[33:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a picture that Pillow can read; it is empty"),
        (b"hello, world", re.escape("it begins with b'hello, w'")),
        (PNG[: len(PNG) // 2], "a damaged picture .*; export it anew"),
        (JPEG[: len(JPEG) // 2], "a damaged picture"),
        (BOMB, "could be decompression bomb"),
        (_file(_grey(70_000, np.int32), "TIFF"), "its levels are 70000 to 70000, not 0 to 65535"),
        (_file(_grey(3.5, np.float32), "TIFF"), "its levels are 3.5 to 3.5, not 0 to 1"),
    ],
)
def test_read_still_of_a_bad_file_says_what_is_wrong_with_which(data, message):
    with pytest.raises(ValueError, match=f"^x.png: .*{message}"):
        _read(data)


@given(st.sampled_from([PNG, JPEG]), st.integers(0, 4000), st.binary(max_size=40))
@example(PNG, 0, b"")
def test_read_still_of_broken_bytes_is_a_frame_or_a_message(data, at, noise):
    at %= len(data)
    broken = data[:at] + noise + data[at + len(noise) :]
    with suppress(ValueError):
        assert read_still(broken, 8, where="x.png").shape == (8, 8, 3)
