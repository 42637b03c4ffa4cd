"""Small pictures against the clips that they show."""

import io

import numpy as np
import pytest
from PIL import Image

from orchestrator.comparing.thumbnails import clips_of_grid, thumbnail
from orchestrator.pictures import animated_grid


def _clips(count, T=5, H=16, W=16):
    """A square of the clip's own grey that moves over another: few colours, so GIF is exact."""
    clips = np.full((count, T, H, W, 3), 30, np.uint8)
    for n in range(count):
        for t in range(T):
            clips[n, t, 4:10, t : t + 6] = 60 + 8 * n
    return clips


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 16])
def test_grid_comes_apart_into_the_clips_it_was_made_of(count):
    clips = _clips(count)
    assert np.array_equal(clips_of_grid(animated_grid(clips)), clips)


def test_grid_of_oblong_clips_comes_apart():
    clips = _clips(6, H=16, W=24)
    assert np.array_equal(clips_of_grid(animated_grid(clips)), clips)


def test_other_picture_is_one_clip_and_no_picture_is_refused():
    out = io.BytesIO()
    Image.new("RGB", (31, 17), (9, 8, 7)).save(out, "PNG")
    assert clips_of_grid(out.getvalue()).shape == (1, 1, 17, 31, 3)
    with pytest.raises(ValueError, match="no picture"):
        clips_of_grid(b"GIF89a of nothing")


def test_thumbnail_plays_the_first_clips_and_shows_their_frames():
    clips = _clips(9, T=8)
    made = thumbnail(clips, count=4, most_bytes=100_000)
    moving = Image.open(io.BytesIO(made.moving))
    assert (moving.n_frames, moving.size) == (8, (made.width, made.height))
    assert moving.size == (4 * 18 - 2, 16)
    moving.seek(7)
    frame = np.asarray(moving.convert("RGB")).astype(int)
    truth = np.concatenate(
        [np.pad(clip[7], ((0, 0), (0, 2), (0, 0)), constant_values=255) for clip in clips[:4]], 1
    )
    assert np.abs(frame - truth[:, :-2]).mean() < 12  # lossy
    still = Image.open(io.BytesIO(made.still))
    assert still.size == (made.still_width, made.still_height) == (6 * 18 - 2, 34)


def test_thumbnail_of_noise_stays_within_its_bytes():
    noise = np.random.default_rng(0).integers(0, 255, (16, 32, 64, 64, 3), np.uint8)
    made = thumbnail(noise, count=4, most_bytes=60_000)
    assert (
        len(made.moving) + len(made.still) < 90_000
    )  # the least quality there is, a quarter of the frames
    assert Image.open(io.BytesIO(made.moving)).n_frames < 32
