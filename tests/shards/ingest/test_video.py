"""Decoding: time, size, rotation, depth and damage, against computations made another way."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.video import Stamped, Video, VideoRejectedError, on_grid


def frames_of(path, gray_px=320):
    with Video(str(path), fps=25, canvas_px=128, gray_px=gray_px) as video:
        frames = list(video.frames())
    return frames, video


def shown_at(times_ms, slots):
    """Which picture each slot shows, slot by slot: the last one not after it, rounded."""
    nearest = [(time - times_ms[0] + 20) // 40 for time in times_ms]
    return [max(n for n, slot in enumerate(nearest) if slot <= k) for k in range(slots)]


@pytest.mark.parametrize(
    "times_ms",
    [
        [n * 40 for n in range(40)],
        [n * 20 for n in range(60)],
        [n * 100 for n in range(20)],
        [0, 40, 130, 140, 150, 400, 410, 900, 940, 1000, 1100],
        [500 + n * 33 for n in range(40)],
    ],
    ids=["25 fps", "50 fps", "10 fps", "variable", "30 fps from 0.5 s"],
)
def test_video_at_any_rate_shows_the_picture_its_timestamps_say(
    tmp_path, film, read_number, times_ms
):
    path = film(tmp_path / "v.mkv", times_ms)
    frames, video = frames_of(path)
    assert video.decoded == len(times_ms)
    until_last = (times_ms[-1] - times_ms[0] + 20) // 40
    assert until_last <= len(frames) <= until_last + 3  # and as long as the last one is shown
    numbers = [read_number(frame.picture.canvas) for frame in frames]
    assert numbers == shown_at(times_ms, len(frames))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert {b.time_s - a.time_s < 0.0401 for a, b in pairwise(frames)} <= {True}


@given(st.lists(st.integers(0, 900), min_size=1, max_size=40), st.sampled_from([5, 24, 25, 30]))
def test_grid_of_random_steps_agrees_with_looking_up_every_slot(steps_ms, fps):
    times = [Fraction(sum(steps_ms[: n + 1]), 1000) for n in range(len(steps_ms))]
    pictures = [Stamped(item=n, time=t, duration=Fraction(1, 20)) for n, t in enumerate(times)]
    shown = [s.item for s in on_grid(pictures, fps) for _ in range(s.slots)]
    edges = [
        int((t - times[0]) * fps + Fraction(1, 2)) for t in [*times, times[-1] + Fraction(1, 20)]
    ]
    wanted = [max(n for n, e in enumerate(edges[:-1]) if e <= k) for k in range(edges[-1])]
    assert shown == wanted


def test_jump_in_time_starts_a_new_segment_without_filling_it(tmp_path, film):
    frames, _ = frames_of(film(tmp_path / "v.mkv", [0, 40, 80, 60_000, 60_040]))
    assert [frame.segment for frame in frames] == [0, 0, 0, 1, 1]
    assert frames[3].time_s == pytest.approx(60.0)


def test_disordered_avi_timestamps_fall_back_to_decoding_times(shared_data):
    frames, video = frames_of(shared_data / "videos" / "kinetics_sample.avi")
    assert (video.decoded, len(frames)) == (164, 164)
    repeated = sum(a.picture is b.picture for a, b in pairwise(frames))
    assert repeated <= 1  # believing its presentation times would repeat every third picture


def test_rotated_video_is_turned_upright(tmp_path, film):
    upright, _ = frames_of(film(tmp_path / "a.mp4", [0, 40]))
    turned, _ = frames_of(film(tmp_path / "b.mp4", [0, 40], turned=90))
    a, b = upright[0].picture, turned[0].picture
    assert b.canvas.shape == (a.canvas.shape[1], a.canvas.shape[0], 3)
    difference = np.abs(np.rot90(a.canvas).astype(int) - b.canvas).mean()
    assert difference < 2
    assert np.abs(np.rot90(a.gray).astype(int) - b.gray).mean() < 2


def test_phone_video_with_rotation_stands_upright(shared_data):
    frames, _ = frames_of(shared_data / "videos" / "video_90.mov")
    assert frames[0].picture.canvas.shape == (227, 128, 3)


@pytest.mark.parametrize(
    ("size", "pixels"),
    [((161, 97), "yuv444p"), ((192, 144), "yuv420p10le"), ((64, 48), "yuv420p")],
    ids=["odd", "10-bit", "smaller than the canvas"],
)
def test_unusual_format_gives_the_pictures_that_went_in(tmp_path, film, read_number, size, pixels):
    frames, _ = frames_of(film(tmp_path / "v.mkv", range(0, 200, 40), size=size, pixels=pixels))
    assert [read_number(frame.picture.canvas) for frame in frames] == [0, 1, 2, 3, 4]
    assert min(frames[0].picture.canvas.shape[:2]) == 128
    bright, dark = (frames[0].picture.gray[y, x].mean() for y, x in _quarters(frames[0]))
    assert bright > dark + 40


def _quarters(frame):
    height, width = frame.picture.gray.shape
    top, left = slice(0, height // 2), slice(0, width // 2)
    return (top, left), (top, slice(width // 2, None))


def test_gray_is_at_most_the_size_asked_and_never_enlarged(tmp_path, film):
    path = film(tmp_path / "v.mp4", [0, 40], size=(640, 360))
    assert frames_of(path)[0][0].picture.gray.shape == (180, 320)
    assert frames_of(path, None)[0][0].picture.gray.shape == (360, 640)
    small = film(tmp_path / "s.mp4", [0, 40])
    assert frames_of(small)[0][0].picture.gray.shape == (144, 192)


@pytest.mark.parametrize("content", [b"", b"hello\nworld\n" * 50, bytes(5000)])
def test_file_that_is_no_video_is_rejected_as_such(content):
    with pytest.raises(VideoRejectedError) as caught:
        Video(io.BytesIO(content), fps=25, canvas_px=128, gray_px=320)
    assert caught.value.reason == "not_video"


def test_sound_without_pictures_is_not_video(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoRejectedError, match="no video stream"):
        Video(str(path), fps=25, canvas_px=128, gray_px=320)


def test_truncated_video_gives_the_frames_before_the_cut(tmp_path, film, read_number):
    data = film(tmp_path / "v.mkv", range(0, 4000, 40)).read_bytes()
    with Video(io.BytesIO(data[: len(data) // 2]), fps=25, canvas_px=128, gray_px=320) as video:
        frames = list(video.frames())
    sound = [frame for frame in frames if not frame.picture.corrupt]
    numbers = [read_number(frame.picture.canvas) for frame in sound]
    assert 20 < len(numbers) < 80
    assert numbers == list(range(len(numbers)))


def test_broken_real_video_keeps_what_came_before_and_says_so(shared_data):
    frames, video = frames_of(shared_data / "videos" / "corrupted.mp4")
    assert (video.decoded, len(frames)) == (28, 70)
    assert "Invalid data" in video.damage
