"""A WebDataset written by the webdataset package itself becomes readable by ours."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import webdataset

from shards import index, stats
from shards.read import Reader, Slice, open_dataset


@pytest.fixture
def foreign(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """Two tars in an order and with names that are not ours, and each clip's jpeg by key."""
    (tmp_path / "set/shards").mkdir(parents=True)
    rng = np.random.default_rng(2)
    written = {}
    for number in range(2):
        with webdataset.TarWriter(str(tmp_path / f"set/shards/part-{number}.tar")) as sink:
            for n in (3, 1, 2):
                key = f"./class.a/{number}{n}"
                strip = rng.integers(0, 256, (4 * 8, 8, 3), dtype=np.uint8)
                data = simplejpeg.encode_jpeg(strip, 95)
                sink.write({"__key__": key, "jpg": data, "json": {"n": n}, "cls": b"7"})
                written[key] = data
    return tmp_path / "set", written


def test_index_foreign_webdataset_reads_the_same_clips(
    foreign: tuple[Path, dict[str, bytes]], capsys: Any
) -> None:
    root, written = foreign
    assert index.main([str(root), "--frames", "4"]) == 0
    assert "2 shards, 6 clips of 4x8x8x3" in capsys.readouterr().out
    part = Slice(rank=0, world_size=1, global_batch=6)
    reader = Reader(open_dataset(str(root)), seed=0, slice=part, with_json=True)
    with closing(reader.batches(0)) as batches:
        batch = next(batches)
    assert sorted(batch.keys) == sorted(written)
    assert batch.json is not None
    for key, clip, facts in zip(batch.keys, batch.video_bthwc, batch.json, strict=True):
        assert np.array_equal(clip.reshape(32, 8, 3), simplejpeg.decode_jpeg(written[key]))
        assert facts == {"n": int(key[-1])}


@pytest.mark.parametrize(
    ("notes", "labels"),
    [
        ([{"labels": ["walk"]}, {"labels": ["run", "fast"]}, {"labels": ["run"]}], ["run", "walk"]),
        ([{"labels": ["walk"]}, {"labels": []}, {"labels": ["run"]}], []),
        ([{"labels": ["walk"]}, {"labels": [3]}, {"labels": ["run"]}], []),
        ([{"labels": ["walk"]}, ["labels"], {"labels": ["run"]}], []),
        ([{"labels": ["walk"]}, None, {"labels": ["run"]}], []),
    ],
    ids=["classes", "no label", "a number", "no object", "no json"],
)
def test_index_counts_the_clips_of_each_class_where_all_have_one(
    tmp_path: Path, notes: list[Any], labels: list[str]
) -> None:
    (tmp_path / "shards").mkdir()
    strip = simplejpeg.encode_jpeg(np.zeros((4 * 8, 8, 3), np.uint8), 95)
    with webdataset.TarWriter(str(tmp_path / "shards/a.tar")) as sink:
        for n, note in enumerate(notes):
            told = {} if note is None else {"json": note}
            sink.write({"__key__": str(n), "jpg": strip, **told})
    assert index.main([str(tmp_path), "--frames", "4"]) == 0
    made = open_dataset(str(tmp_path))
    assert made.labels == labels
    counts = {"label run": 2, "label walk": 1} if labels else {}
    assert made.manifest.counts == {"clips_kept": 3, **counts}


def test_index_frames_that_do_not_divide_the_strip_exit_1(
    foreign: tuple[Path, dict[str, bytes]], capsys: Any
) -> None:
    assert index.main([str(foreign[0]), "--frames", "5"]) == 1
    assert "32 high, which is not 5 frames" in capsys.readouterr().err


def test_index_tar_cut_between_two_members_is_refused(
    foreign: tuple[Path, dict[str, bytes]], capsys: Any
) -> None:
    """tarfile and webdataset read such a tar as if it were whole."""
    root, _ = foreign
    tar = root / "shards/part-1.tar"
    members = index.scan(tar.read_bytes(), where="whole")
    end = members[5].offset + -(-members[5].size // 512) * 512
    tar.write_bytes(tar.read_bytes()[:end])
    assert index.main([str(root), "--frames", "4"]) == 1
    assert "part-1.tar: has no end mark" in capsys.readouterr().err
    assert not (root / "manifest.json").exists()


def test_index_tar_cut_within_a_member_is_refused(
    foreign: tuple[Path, dict[str, bytes]], capsys: Any
) -> None:
    root, _ = foreign
    tar = root / "shards/part-0.tar"
    members = index.scan(tar.read_bytes(), where="whole")
    tar.write_bytes(tar.read_bytes()[: members[3].offset + 10])
    assert index.main([str(root), "--frames", "4"]) == 1
    assert "part-0.tar" in capsys.readouterr().err


def test_index_of_a_sealed_dataset_is_refused(make_dataset: Any, capsys: Any) -> None:
    assert index.main([make_dataset([3]).location, "--frames", "2"]) == 2
    assert "has a manifest" in capsys.readouterr().err


def test_index_folder_without_tars_exits_with_a_message(tmp_path: Path, capsys: Any) -> None:
    assert index.main([str(tmp_path), "--frames", "2", "--raw", "8x8x3"]) == 2
    assert "no tars below" in capsys.readouterr().err


def test_stats_measures_known_clips(make_dataset: Any) -> None:
    made = make_dataset([40, 20], shape=(4, 8, 8, 3))
    figures = stats.describe(open_dataset(made.location), clips=60)
    every = np.stack(list(made.clips.values())).astype(float)
    measured = figures["measured"]
    assert figures["clips"] == 60
    assert figures["hours"] == pytest.approx(60 * 4 / 25 / 3600)
    assert measured["brightness"]["mean"] == pytest.approx(every.mean())
    change = np.abs(np.diff(every, axis=1)).mean()
    assert measured["motion_per_frame"]["mean"] == pytest.approx(change)
    assert measured["clip_bytes"]["quantiles_0_5_50_95_100"] == [768] * 5
    assert sum(measured["contrast"]["histogram"]) == 60


def test_stats_command_prints_a_report(make_dataset: Any, capsys: Any) -> None:
    assert stats.main([make_dataset([9]).location]) == 0
    out = capsys.readouterr().out
    assert "9 clips of 2x8x8x3" in out
    assert "motion_per_frame: 9 measured" in out


def test_stats_no_dataset_exits_2(tmp_path: Path, capsys: Any) -> None:
    assert stats.main([str(tmp_path)]) == 2
    assert "no dataset at" in capsys.readouterr().err
