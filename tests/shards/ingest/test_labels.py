"""Classes: what a class folder's clips are counted as, in the manifest and for people."""

import json
import shutil
from collections import Counter

import pytest
import webdataset

from shards import stats
from shards.dataset import open_dataset
from shards.ingest import main


@pytest.fixture(scope="module")
def videos(tmp_path_factory, panning):
    """Two classes of real videos, a copy of one of the other, and a class without any."""
    root = tmp_path_factory.mktemp("videos")
    for n in range(3):
        panning(root / ("walk" if n else "run") / f"{n}.mp4", 40 + 32 * n, seed=n)
    shutil.copy(root / "run/0.mp4", root / "walk/copy.mp4")
    (root / "jump_rejected_twice").mkdir()
    (root / "jump_rejected_twice/text.mp4").write_text("this is no video\n" * 40)
    return root


def ingested(src, dst, *options):
    assert main([str(src), str(dst), "--workers", "1", "--stabilizer", "lk", *options]) == 0
    return open_dataset(str(dst))


def classes(dataset):
    return {name: dataset.manifest.counts[f"label {name}"] for name in dataset.labels}


def test_class_counts_are_those_of_the_clips_another_reader_finds(videos, tmp_path, capsys):
    made = ingested(videos, tmp_path / "d")
    tars = [str(path) for path in (tmp_path / "d/shards").glob("*.tar")]
    theirs = webdataset.WebDataset(tars, shardshuffle=False)
    seen = Counter(label for clip in theirs for label in json.loads(clip["json"])["labels"])
    assert seen == {"run": 1, "walk": 6}
    assert classes(made) == {"jump_rejected_twice": 0, **seen}
    assert "classes          3   of 0 to 6 clips" in capsys.readouterr().out


def test_copy_that_is_left_out_counts_in_no_class(videos, tmp_path):
    made = ingested(videos, tmp_path / "d", "--duplicate-bits", "2")
    found = classes(made)
    assert found["run"] + found["walk"] == made.samples == 6


def test_one_clip_without_a_class_makes_a_dataset_without_classes(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "v")
    (tmp_path / "v/zero.mp4").touch()
    assert ingested(tmp_path / "v", tmp_path / "rejected").labels != []
    shutil.copy(videos / "run/0.mp4", tmp_path / "v/stray.mp4")
    assert ingested(tmp_path / "v", tmp_path / "kept").labels == []


def test_folders_beyond_any_number_of_classes_are_none(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.report.MOST_CLASSES", 2)
    assert ingested(videos, tmp_path / "d").labels == []


def test_stats_shows_the_clips_of_each_class(videos, tmp_path, capsys):
    ingested(videos, tmp_path / "d")
    capsys.readouterr()
    assert stats.main([str(tmp_path / "d")]) == 0
    said = capsys.readouterr().out
    assert "clips of each of 3 classes" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["walk", "#" * 40, "6"] in rows
    assert ["jump_rejected_twice", "0"] in rows
    assert stats.main([str(tmp_path / "d"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["classes"] == {"jump_rejected_twice": 0, "run": 1, "walk": 6}
    assert not any(name.startswith("label") for name in figures["counts"])
