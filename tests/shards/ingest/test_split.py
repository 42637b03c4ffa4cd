"""Cutting each class into a train and a test part, by video."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.dataset import open_dataset
from shards.ingest import main
from shards.preview import some_clips
from shards.recipe import DrawnSplit
from shards.sources import Source
from shards.split import drawn

CLASS_SIZES = st.lists(st.integers(2, 30), min_size=1, max_size=5)


def sources(sizes):
    names = [f"class{c}/{n:03d}.mp4" for c, size in enumerate(sizes) for n in range(size)]
    return [Source(name=name, location=f"/v/{name}") for name in names]


@given(CLASS_SIZES, st.floats(0.01, 0.99), st.integers(1, 4), st.randoms())
def test_parts_share_no_source_and_have_every_class(sizes, share, together, shuffler):
    found = sources([size + together for size in sizes])
    parts = {
        part: drawn(found, DrawnSplit(part=part, test_share=share, together=together))
        for part in ("train", "test")
    }
    assert sorted(s.name for part in parts.values() for s in part) == [s.name for s in found]
    for number, size in enumerate(sizes):
        counts = {
            part: sum(s.labels == [f"class{number}"] for s in kept) for part, kept in parts.items()
        }
        assert min(counts.values()) >= 1
        assert abs(counts["test"] - share * (size + together)) <= 1.5 * together
    tests = {source.name for source in parts["test"]}
    for number, size in enumerate(sizes):
        flags = [f"class{number}/{n:03d}.mp4" in tests for n in range(size + together)]
        for start in range(0, len(flags), together):
            assert len(set(flags[start : start + together])) == 1
    mixed = list(found)
    shuffler.shuffle(mixed)
    again = drawn(mixed, DrawnSplit(part="test", test_share=share, together=together))
    assert {source.name for source in again} == tests


def test_part_is_random_and_another_class_does_not_change_it():
    small, large = sources([40]), sources([40, 12])
    part = DrawnSplit(part="test", test_share=0.5)
    numbers = [int(source.name[7:10]) for source in drawn(small, part)]
    assert len(numbers) == 20
    assert 14 < np.mean(numbers) < 25  # neither the first nor the last half
    assert 2 < Counter(np.diff(numbers).tolist())[1] < 18
    kept = {source.name for source in drawn(large, part)}
    assert {source.name for source in drawn(small, part)} < kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--part=validation"], "part='validation': choose one of train, test"),
        (["--part=test", "--test-share=1"], "test_share=1.0: must be between 0 and 1"),
        (["--part=test", "--test-share=0"], "test_share=0.0: must be between 0 and 1"),
        (["--part=test", "--together=0"], "together=0: must be at least 1"),
        (["--part=test", "--together=2"], "in 1 of 2 classes ('run'): each needs at least 3"),
        (["--test-share=0.5"], "are of --part train or --part test"),
    ],
)
def test_part_that_cannot_be_made_exits_2(tmp_path, capsys, options, said):
    for name in ("walk/1", "walk/2", "walk/3", "run/1", "run/2"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / f"{name}.jpg").touch()
    call = [str(tmp_path / "src"), str(tmp_path / "d"), "--recipe", "strips", *options]
    assert main(call) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.fixture(scope="module")
def parts(shared_data, tmp_path_factory):
    """The Weizmann strips of each part. Strip 2k + 1 is strip 2k mirrored, pixel for pixel."""
    src, found = shared_data / "weizmann_strips", {}
    for part in ("train", "test"):
        dst = tmp_path_factory.mktemp(part) / "d"
        call = [str(src), str(dst), "--recipe", "strips", "--part", part, "--together", "2"]
        assert main([*call, "--workers", "1"]) == 0
        found[part] = open_dataset(str(dst))
    return src, found


def test_real_action_strips_keep_a_video_and_its_mirror_image_in_one_part(parts):
    src, found = parts
    names = {
        part: {note["source"] for _, note in some_clips(made.store, made.manifest, made.samples)}
        for part, made in found.items()
    }
    assert {part: len(kept) for part, kept in names.items()} == {"train": 48, "test": 24}
    films = {name: pixels(src / name) for part in names.values() for name in part}
    named = {film.tobytes(): name for name, film in films.items()}
    twin = {name: named[film[:, :, ::-1].tobytes()] for name, film in films.items()}
    assert all(twin[name] != name for name in twin)
    for kept in names.values():
        assert {twin[name] for name in kept} == kept


def pixels(path):
    """(T, 64, 64, 3)"""
    with Image.open(path) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    return sheet.reshape(64, -1, 64, 3).swapaxes(0, 1)


def test_real_action_strips_have_every_class_in_both_parts(parts):
    _, found = parts
    for part, made in found.items():
        shown = some_clips(made.store, made.manifest, made.samples)
        seen = Counter(note["labels"][0] for _, note in shown)
        assert made.labels == ["0", "1", "3", "4"]
        assert {f"label {name}": number for name, number in seen.items()} == {
            k: n for k, n in made.manifest.counts.items() if k.startswith("label ")
        }
        assert made.manifest.recipe["split"] == {"part": part, "test_share": 0.33, "together": 2}
    assert found["train"].version != found["test"].version
