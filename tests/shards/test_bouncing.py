"""Bouncing digits: motion against a formula of its own, splits, and files as MNIST's are."""

import gzip

import numpy as np
import pytest

from shards.bouncing import (
    GLYPH,
    Bouncing,
    Glyphs,
    caption,
    find_glyphs,
    scene_of,
    trajectory,
    words,
)


def _block_glyphs(per_digit=12):
    """Every picture is a block of its digit's brightness: overlaps can be read off."""
    digits = np.repeat(np.arange(10, dtype=np.uint8), per_digit)
    pictures = np.zeros((len(digits), GLYPH, GLYPH), np.uint8)
    pictures[:] = (100 + 10 * digits)[:, None, None]
    return Glyphs(pictures=pictures, digits=digits, name="blocks")


def _corner(frame):
    rows, columns = np.nonzero(frame)
    return rows.min(), columns.min()


@pytest.mark.parametrize("motion", [0, 1])
def test_trajectory_moves_7_pixels_stops_at_the_wall_and_turns(motion):
    path = trajectory(np.array([0.5, 0.5]), motion, 10, 36)
    along = [left if motion == 0 else top for top, left in path]
    across = {top if motion == 0 else left for top, left in path}
    # 0.7, 0.9, 1 (stopped), 0.8, 0.6, 0.4, 0.2, 0, 0 or 0.2 ... of 36, truncated
    assert along[:7] == [25, 32, 36, 28, 21, 14, 7]
    assert across == {18}
    assert min(along) >= 0


@pytest.mark.parametrize("digits", [1, 2])
def test_clip_shows_what_its_caption_says(digits):
    """Overlaps hide nothing here: digits are found by the brightness that they alone have."""
    clips, glyphs = Bouncing(digits=digits, count=50, size=128), _block_glyphs()
    seen = 0
    for n in range(50):
        video, note = clips.clip(n, glyphs)
        assert video.shape == (10, 128, 128, 1)
        assert [glyphs.digits[p] for p in note["pictures"]] == note["digits"]
        assert note["caption"] == caption(tuple(zip(note["digits"], note["motions"], strict=True)))
        if len(set(note["digits"])) < digits:
            continue
        for digit, motion in zip(note["digits"], note["motions"], strict=True):
            alone = video[..., 0] == 100 + 10 * digit
            if alone.sum((1, 2)).min() < GLYPH**2:
                continue  # partly behind the other one
            corners = np.array([_corner(frame) for frame in alone])
            moved = np.ptp(corners, axis=0) > 0
            assert moved.tolist() == ([False, True] if motion == 0 else [True, False])
            words_of_it = f"digit {digit} is moving {('left and right', 'up and down')[motion]}"
            assert words_of_it in note["caption"]
            seen += 1
    assert seen > 10


def test_overlap_adds_up_to_white_or_takes_the_brighter():
    glyphs = _block_glyphs()
    for overlap in ("add", "max"):
        clips = Bouncing(digits=2, count=80, overlap=overlap)
        values = set()
        for n in range(80):
            video, note = clips.clip(n, glyphs)
            a, b = (100 + 10 * digit for digit in note["digits"])
            values |= set(np.unique(video).tolist()) - {0, a, b}
            both = min(a + b, 255) if overlap == "add" else max(a, b)
            assert set(np.unique(video).tolist()) <= {0, a, b, both}
        assert bool(values) == (overlap == "add")


def test_parts_share_no_picture_and_unseen_shares_no_caption_with_train():
    glyphs = _block_glyphs()
    for digits, scenes in ((1, 10), (2, 200)):
        shown = {}
        for part in ("train", "test", "unseen"):
            clips = Bouncing(digits=digits, part=part, count=400)
            notes = [clips.clip(n, glyphs)[1] for n in range(400)]
            captions = {note["caption"] for note in notes}
            pictures = {p for note in notes for p in note["pictures"]}
            shown[part] = captions, pictures
            assert len(clips.scenes) == scenes
        assert not shown["train"][1] & (shown["test"][1] | shown["unseen"][1])
        assert not shown["train"][0] & shown["unseen"][0]
        everything = Bouncing(digits=digits, part="all", count=400)
        assert len(everything.scenes) == 2 * scenes
        seen = {p for n in range(400) for p in everything.clip(n, glyphs)[1]["pictures"]}
        assert not seen & shown["test"][1]
        if digits == 1:
            assert shown["train"][0] == shown["test"][0]
            every = shown["train"][0] | shown["unseen"][0]
            assert len(every) == 20


def test_training_scenes_have_both_motions_equally_often():
    one = Bouncing().scenes
    assert sorted(digit for ((digit, _),) in one) == list(range(10))
    assert sum(motion for ((_, motion),) in one) == 5
    two = Bouncing(digits=2).scenes
    assert sum(first[1] for first, _ in two) == 100
    assert {tuple(d for d, _ in scene) for scene in two} == {
        (a, b) for a in range(10) for b in range(10)
    }
    assert Bouncing(digits=2, seed=1).scenes != two


def test_clip_is_a_function_of_seed_part_and_number():
    glyphs = _block_glyphs()
    one, again = (Bouncing(count=9).clip(5, glyphs) for _ in range(2))
    assert np.array_equal(one[0], again[0])
    assert one[1] == again[1]
    longer = Bouncing(count=500).clip(5, glyphs)
    assert np.array_equal(one[0], longer[0])
    other = Bouncing(count=9, seed=1).clip(5, glyphs)
    assert not np.array_equal(one[0], other[0])
    # Pinned: a change would make every trained model's data another.
    _, note = Bouncing(digits=2).clip(11_999, glyphs)
    assert note["caption"] == PINNED


PINNED = "digit 1 is moving up and down and digit 0 is moving left and right"


def test_scene_of_a_caption_is_what_it_was_written_from():
    for scene in Bouncing(digits=2).scenes[:20] + Bouncing().scenes:
        assert scene_of(caption(scene)) == scene
    for wrong in (
        "",
        "person 1 is walking",
        "digit 3 is moving up",
        "digit 3 is moving up and down.",
    ):
        with pytest.raises(ValueError, match="none of bouncing digits"):
            scene_of(wrong)


def test_words_are_those_of_the_captions():
    found = words(Bouncing().scenes)
    assert {"digit", "is", "moving", "left", "and", "right", "up", "down", "7"} <= set(found)
    assert len(found) == 8 + 10


def test_shipped_digits_lie_as_mnists_do():
    glyphs = find_glyphs(None)
    assert glyphs.pictures.shape == (1797, 28, 28)
    assert glyphs.pictures.max() == 255
    assert glyphs.pictures[:, :4].max() == glyphs.pictures[:, :, :4].max() == 0
    assert (np.bincount(glyphs.digits) > 170).all()


def test_mnist_is_read_from_its_files(shared_data):
    glyphs = find_glyphs(str(shared_data / "mnist"))
    assert glyphs.pictures.shape == (10_000, 28, 28)
    assert np.bincount(glyphs.digits).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert glyphs.pictures.mean() == pytest.approx(33.79, abs=0.01)


def test_wrong_digit_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no file named"):
        find_glyphs(str(tmp_path))
    images = tmp_path / "t10k-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\0" * 12))
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte.gz is missing"):
        find_glyphs(str(tmp_path))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="t10k-labels"):
        find_glyphs(str(tmp_path))
    with pytest.raises(ValueError, match="digits=3: must be 1 or 2"):
        Bouncing(digits=3)
