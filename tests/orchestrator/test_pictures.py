"""Pictures are decoded again with Pillow and PyAV and their pixels compared with the videos."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from orchestrator.pictures import (
    animated_grid,
    animated_mp4,
    animated_rows,
    animated_rows_mp4,
    contact_sheet,
    still_grid,
    streams_sheet,
    strip,
    to_pixels,
)

ZOOM, GAP = 2, 4


def _noise(clips: int, frames: int = 6, size: int = 8) -> NDArray[np.uint8]:
    shape = (clips, frames, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _gif(data: bytes) -> tuple[NDArray[np.uint8], list[int], Any]:
    """(T, H, W, 3), the frames' milliseconds, the repeat count (0 is for ever)."""
    frames, durations = [], []
    with Image.open(io.BytesIO(data)) as image:
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
        return np.stack(frames), durations, image.info["loop"]


def _png(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def _cell(picture: NDArray[np.uint8], row: int, column: int, size: int) -> NDArray[np.uint8]:
    """The clip at (row, column) of the last axes (H, W, 3), at its own size."""
    edge = size * ZOOM
    top, left = GAP + row * (edge + GAP), GAP + column * (edge + GAP)
    return picture[..., top : top + edge : ZOOM, left : left + edge : ZOOM, :]


def test_to_pixels_of_floats_is_the_fixed_map_rounded_and_clipped() -> None:
    values = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.25, 1.0, 7.0])
    pixels = to_pixels(values.view(1, 1, 7, 1, 1))
    assert pixels.shape == (1, 7, 1, 1, 3)
    assert pixels[0, :, 0, 0, 0].tolist() == [0, 0, 64, 128, 159, 255, 255]
    assert (pixels == pixels[..., :1]).all()


def test_to_pixels_inverts_the_scaling_of_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1, 1)
    scaled = torch.from_numpy(levels).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    assert (to_pixels(scaled)[..., :1] == levels).all()
    assert (to_pixels(scaled.bfloat16().double()) == to_pixels(scaled.bfloat16())).all()


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (torch.zeros(3, 32, 8, 8), "5 axes"),
        (torch.full((1, 3, 2, 4, 4), torch.nan), "96 of 96 values"),
        (torch.zeros(1, 2, 2, 4, 4), "with 2 channels"),
        (np.zeros((1, 2, 4, 4, 3)), "of type float64"),
    ],
)
def test_to_pixels_of_what_is_no_video_says_what_is(videos: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_pixels(videos)


def test_animated_grid_places_clips_by_row_for_ever_at_25_fps() -> None:
    primaries = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 0, 0]])
    videos = np.zeros((5, 6, 8, 8, 3), np.uint8)
    for clip in range(5):
        for t in range(6):
            videos[clip, t] = primaries[(clip + t) % 5]
    frames, durations, loop = _gif(animated_grid(videos, columns=2))
    assert frames.shape == (6, GAP + 3 * 20, GAP + 2 * 20, 3)
    assert durations == [40] * 6
    assert loop == 0
    for clip in range(5):
        assert (_cell(frames, *divmod(clip, 2), 8) == videos[clip]).all()
    assert (_cell(frames, 2, 1, 8) == 255).all()
    assert (frames[:, :GAP] == 255).all()
    assert _gif(animated_grid(videos, fps=12.5))[1] == [80] * 6


def test_animated_grid_of_many_clips_decodes_near_the_videos() -> None:
    t, y, x = np.meshgrid(np.arange(8), np.arange(32), np.arange(32), indexing="ij")
    clips = [np.stack([8 * x, 8 * y, (k * 16 + 8 * t) % 256], -1) for k in range(16)]
    videos = np.stack(clips).astype(np.uint8)
    frames, _, _ = _gif(animated_grid(videos))
    shown = np.stack([_cell(frames, *divmod(k, 4), 32) for k in range(16)])
    assert np.abs(shown.astype(int) - videos).mean() < 14  # 131,072 colours shown by 256


def test_animated_grid_of_a_still_clip_beside_noise_does_not_flicker() -> None:
    videos = _noise(4, frames=12, size=32)
    videos[1] = 93
    videos[2] = np.random.default_rng(1).integers(100, 140, (1, 32, 32, 3), dtype=np.uint8)
    videos[3, :, :, 16:] = videos[2, :, :, 16:]  # still, right of what moves
    frames, durations, _ = _gif(animated_grid(videos))
    assert len(frames) == 12
    assert sum(durations) == 480
    grey, still = _cell(frames, 0, 1, 32), _cell(frames, 0, 2, 32)
    assert (frames[:, :GAP] == 255).all()
    assert (grey == grey[0, 0, 0]).all()
    assert np.abs(grey[0, 0, 0].astype(int) - 93).max() <= 8
    assert (still == still[:1]).all()
    beside = _cell(frames, 0, 3, 32)[:, :, 16:]
    assert (beside == beside[:1]).all()


def test_animated_grid_of_a_ramp_rises_in_every_frame() -> None:
    ramp = torch.linspace(-1, 1, 32).view(1, 1, 32, 1, 1).expand(1, 3, 32, 8, 8)
    frames, _, _ = _gif(animated_grid(ramp))
    shown = _cell(frames, 0, 0, 8)
    assert (shown == shown[:, :1, :1, :1]).all()
    levels = shown[:, 0, 0, 0].astype(int)
    assert (np.diff(levels) > 0).all()
    assert np.abs(levels - np.linspace(0, 255, 32)).max() <= 1


def test_animated_grid_is_a_function_of_the_videos() -> None:
    assert animated_grid(_noise(4)) == animated_grid(_noise(4))


def test_animated_grid_shows_dim_videos_as_dim() -> None:
    dim = torch.full((1, 3, 4, 8, 8), -0.9)
    dim[..., 4:] = -0.7
    shown = _cell(_gif(animated_grid(dim))[0], 0, 0, 8)
    assert (shown[..., 0, 0] == 13).all()
    assert (shown[..., 7, 0] == 38).all()


def test_animated_mp4_decodes_to_the_colours_at_25_fps() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 1, 2, 2, 3), dtype=np.uint8)
    videos = colours.repeat(16, axis=2).repeat(16, axis=3).repeat(10, axis=1)
    with av.open(io.BytesIO(animated_mp4(videos))) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 25
        decoded = [
            frame.reformat(format="rgb24", src_colorspace="itu709").to_ndarray()
            for frame in container.decode(video=0)
        ]
    assert len(decoded) == 10
    frames = np.stack(decoded)
    for clip in range(4):
        inside = _cell(frames, 0, clip, 32)[:, 8::16, 8::16].astype(int)
        assert np.abs(inside - colours[clip]).max() <= 4


def test_animated_mp4_is_a_function_of_the_videos_and_not_of_what_memory_held() -> None:
    t, y, x = np.meshgrid(np.arange(32), np.arange(64), np.arange(64), indexing="ij")
    videos = np.stack([(3 * t + y + (k + 1) * x) % 256 for k in range(4)]).astype(np.uint8)
    coloured = videos[..., None].repeat(3, axis=-1)
    rng = np.random.default_rng(0)
    files = set()
    for _ in range(5):
        leftovers = [rng.bytes(int(rng.integers(1, 400_000))) for _ in range(60)]
        del leftovers[::2]
        files.add(animated_mp4(coloured))
    assert len(files) == 1


def test_animated_rows_has_a_named_row_per_part_and_a_column_per_clip() -> None:
    real, made = _noise(3, frames=4, size=16) // 64 * 64, _noise(3, frames=4, size=16) // 128 * 128
    frames, durations, loop = _gif(animated_rows({"real": real, "made": made}, clips=2))
    assert (durations, loop) == ([40] * 4, 0)
    left = frames.shape[2] - (GAP + 2 * 36)
    assert frames.shape[1] == GAP + 2 * 36
    for row, part in enumerate((real, made)):
        for clip in range(2):
            shown = _cell(frames[:, :, left:], row, clip, 16)
            assert np.abs(shown.astype(int) - part[clip]).max() <= 2
    names = frames[:, :, :left]
    assert (names == names[:1]).all()
    assert all((names[0, GAP + r * 36 : GAP + r * 36 + 32] < 64).any() for r in range(2))


def test_animated_rows_of_bright_clips_has_black_names() -> None:
    bright = np.full((1, 2, 16, 16, 3), 250, np.uint8)
    frames, _, _ = _gif(animated_rows({"real": bright}))
    assert frames[0].min() == 0


def test_contact_sheet_has_a_row_per_clip_and_time_from_left_to_right() -> None:
    videos = _noise(3, frames=32)
    sheet = _png(contact_sheet(videos))
    assert sheet.shape == (GAP + 3 * 20, GAP + 8 * 20, 3)
    for clip in range(3):
        for column, t in enumerate([0, 4, 9, 13, 18, 22, 27, 31]):
            assert (_cell(sheet, clip, column, 8) == videos[clip, t]).all()


def test_contact_sheet_of_chosen_frames_shows_just_those() -> None:
    videos = _noise(2, frames=5)
    sheet = _png(contact_sheet(videos, frames=(4, 1)))
    assert sheet.shape == (GAP + 2 * 20, GAP + 2 * 20, 3)
    assert (_cell(sheet, 1, 0, 8) == videos[1, 4]).all()
    assert (_cell(sheet, 1, 1, 8) == videos[1, 1]).all()


def test_contact_sheet_of_a_short_video_shows_every_frame_once() -> None:
    assert _png(contact_sheet(_noise(1, frames=3))).shape == (GAP + 20, GAP + 3 * 20, 3)


def test_still_grid_has_every_clips_first_frame_row_by_row() -> None:
    videos = _noise(5)
    grid = _png(still_grid(videos, columns=3))
    assert grid.shape == (GAP + 2 * 20, GAP + 3 * 20, 3)
    for clip in range(5):
        assert (_cell(grid, *divmod(clip, 3), 8) == videos[clip, 0]).all()


def test_animated_rows_as_mp4_shows_what_the_gif_shows() -> None:
    parts = {"dark": np.full((2, 3, 16, 16, 3), 20, np.uint8)}
    parts["light"] = np.full((2, 3, 16, 16, 3), 200, np.uint8)
    gif, _, _ = _gif(animated_rows(parts))
    with av.open(io.BytesIO(animated_rows_mp4(parts))) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(np.stack(shown).astype(int) - gif).mean() < 3


def test_strip_is_the_frames_side_by_side_pixel_for_pixel() -> None:
    video = _noise(1, frames=5)[0]
    picture = _png(strip(video))
    assert picture.shape == (8, 40, 3)
    for t in range(5):
        assert (picture[:, 8 * t : 8 * (t + 1)] == video[t]).all()


def test_streams_sheet_has_a_named_row_per_part_of_the_first_clips() -> None:
    levels = {"sample": -1.0, "foreground": -0.5, "mask": 0.25, "background": 1.0}
    parts = {name: torch.full((6, 3, 32, 16, 16), level) for name, level in levels.items()}
    parts["sample"][1] = 0.0
    sheet = _png(streams_sheet(parts, clips=2))
    left = sheet.shape[1] - (GAP + 8 * 36)
    assert sheet.shape[0] == 2 * (GAP + 4 * 36)
    for clip, shown in ((0, [0, 64, 159, 255]), (1, [128, 64, 159, 255])):
        block = sheet[clip * (GAP + 4 * 36) :, left:]
        for row, level in enumerate(shown):
            for column in range(8):
                assert (_cell(block, row, column, 16) == level).all()
    labels = sheet[: GAP + 4 * 36, :left]
    inked = [(labels[GAP + r * 36 : GAP + r * 36 + 32] < 128).any() for r in range(4)]
    assert all(inked)
    assert (labels[:, [0, -1]] == 255).all()  # no name is cut off
    assert (labels[-GAP:] == 255).all()
