"""The whole way from files to a sealed dataset, with every kind of bad file on it."""

import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest
import simplejpeg
import webdataset

from shards import spill
from shards.ingest import main
from shards.manifest import load_manifest
from shards.recipe import Recipe
from shards.storage import LocalStore
from shards.tarfmt import parse_index


def contents(root):
    """Every file below `root`, by relative name."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def sealed(root):
    """Everything in a dataset whose bytes are promised: all but the timings in the report."""
    return {name: data for name, data in contents(root).items() if name != "report.json"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory, panning, film):
    """Six good videos in two classes, and one of each bad kind."""
    root = tmp_path_factory.mktemp("videos")
    for n in range(6):
        panning(root / ("walk" if n % 2 else "run") / f"good{n}.mp4", 75 + n, seed=n)
    (root / "bad").mkdir()
    (root / "bad/text.mp4").write_text("this is no video\n" * 40)
    (root / "bad/zero.mp4").touch()
    film(root / "bad/one.mp4", [0])
    film(root / "bad/four.mp4", [0, 40, 80, 120])
    data = (root / "run/good0.mp4").read_bytes()
    (root / "bad/truncated.mp4").write_bytes(data[: len(data) // 2])
    whole = panning(root / "tmp.mkv", 150).read_bytes()
    (root / "tmp.mkv").unlink()
    (root / "bad/truncated.mkv").write_bytes(whole[: len(whole) // 2])
    film(root / "odd/odd.mkv", range(0, 1400, 40), size=(161, 97), pixels="yuv444p")
    film(root / "odd/ten_bit.mkv", range(0, 1400, 40), pixels="yuv420p10le")
    film(root / "odd/turned.mp4", range(0, 1400, 40), turned=-90)
    uneven = np.cumsum([20, 60, 40, 90, 10] * 8).tolist()
    film(root / "odd/variable.mkv", uneven)
    return root


@pytest.fixture(scope="module")
def dataset(videos, tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    assert main([str(videos), str(root), "--workers", "1"]) == 0
    return root


def fates(root):
    report = json.loads((root / "report.json").read_text())
    return {video["source"]: video for video in report["videos"]}


def test_ingest_counts_every_bad_video_by_reason_and_goes_on(dataset):
    found = fates(dataset)
    reasons = {name: video["reason"] for name, video in found.items() if video["reason"]}
    assert reasons == {
        "bad/text.mp4": "not_video",
        "bad/zero.mp4": "empty",
        "bad/one.mp4": "too_short",
        "bad/four.mp4": "too_short",
        "bad/truncated.mp4": "not_video",  # the table of contents of an MP4 is at its end
    }
    counts = load_manifest(LocalStore(str(dataset))).counts
    assert counts["videos"] == 16
    assert counts["videos_kept"] == 11
    assert counts["videos_rejected_too_short"] == 2
    assert counts["clips"] == counts["clips_kept"] + sum(
        n for name, n in counts.items() if name.startswith("clips_rejected_")
    )


def test_ingest_takes_odd_ten_bit_turned_and_variable_videos(dataset):
    found = fates(dataset)
    for name in ("odd/odd.mkv", "odd/ten_bit.mkv", "odd/turned.mp4", "odd/variable.mkv"):
        assert found[name]["clips"] == 1, found[name]


def test_ingest_keeps_the_clips_before_a_cut(dataset):
    video = fates(dataset)["bad/truncated.mkv"]
    assert video["clips"] >= 1
    assert video["frames"] < 120


def test_dataset_is_what_its_manifest_and_indexes_say(dataset):
    manifest = load_manifest(LocalStore(str(dataset)))
    assert manifest.samples == manifest.counts["clips_kept"]
    files = contents(dataset)
    assert {name for name in files if name.startswith(".")} == set()
    for shard in manifest.shards:
        assert hashlib.sha256(files[shard.tar]).hexdigest() == shard.sha256
        assert hashlib.sha256(files[shard.index]).hexdigest() == shard.index_sha256
        with tarfile.open(fileobj=io.BytesIO(files[shard.tar])) as tar:
            inside = {entry.name: tar.extractfile(entry).read() for entry in tar}
        members = parse_index(files[shard.index], where="")
        assert [member.name for member in members] == sorted(inside)
        for member in members:
            data = files[shard.tar][member.offset : member.offset + member.size]
            assert data == inside[member.name]


def test_samples_carry_where_they_came_from(dataset, videos):
    found = fates(dataset)
    seen = 0
    for sample in read_with_webdataset(dataset):
        note = json.loads(sample["json"])
        content = (videos / note["source"]).read_bytes()
        assert note["etag"] == hashlib.sha256(content).hexdigest()
        assert note["labels"] == [note["source"].split("/")[0]]
        source = hashlib.sha256(note["source"].encode()).hexdigest()[:16]
        assert sample["__key__"] == f"{source}_{note['start_frame']:08d}"
        assert note["start_s"] == pytest.approx(note["start_frame"] / 25, abs=0.05)
        assert note["stabilizer"]["min_inliers"] >= 10
        seen += 1
    assert seen == sum(video["clips"] for video in found.values())


def read_with_webdataset(root):
    tars = sorted(str(path) for path in (root / "shards").glob("*.tar"))
    return webdataset.WebDataset(tars, shardshuffle=False)


def test_webdataset_alone_reads_the_clips_our_index_points_to(dataset):
    theirs = {sample["__key__"]: sample["jpg"] for sample in read_with_webdataset(dataset)}
    manifest = load_manifest(LocalStore(str(dataset)))
    ours = {}
    for shard in manifest.shards:
        tar = (dataset / shard.tar).read_bytes()
        for member in parse_index((dataset / shard.index).read_bytes(), where=""):
            if member.extension == "jpg":
                ours[member.key] = tar[member.offset : member.offset + member.size]
    assert len(ours) == manifest.samples
    assert theirs == ours
    for data in ours.values():
        assert simplejpeg.decode_jpeg(data).shape == (32 * 64, 64, 3)


def test_finished_dataset_is_left_alone(dataset, videos, capsys):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    assert main([str(videos), str(dataset), "--workers", "1"]) == 0
    assert "already complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_ingest_with_many_workers_gives_the_same_bytes(dataset, videos, tmp_path):
    assert main([str(videos), str(tmp_path / "d"), "--workers", "4"]) == 0
    assert sealed(tmp_path / "d") == sealed(dataset)


class Stopped(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize(
    ("function", "after"), [("cut_batch", 0), ("cut_batch", 5), ("pack_shard", 2), ("write", 27)]
)
def test_ingest_stopped_anywhere_resumes_to_the_same_bytes(
    videos, tmp_path, monkeypatch, function, after
):
    small = ["--workers", "1", "--shard-mib", "1", "--encoding", "u8"]
    assert main([str(videos), str(tmp_path / "whole"), *small]) == 0
    calls = []
    owner = LocalStore if function == "write" else __import__("shards.ingest").ingest
    real = getattr(owner, function)

    def stops(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise Stopped
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, stops)
        with pytest.raises(Stopped):
            main([str(videos), str(tmp_path / "stopped"), *small])
    assert not (tmp_path / "stopped/manifest.json").exists()
    again = []
    monkeypatch.setattr(
        "shards.ingest.cut_batch", lambda job: again.append(job) or spill.cut_batch(job)
    )
    assert main([str(videos), str(tmp_path / "stopped"), *small]) == 0
    assert sealed(tmp_path / "stopped") == sealed(tmp_path / "whole")
    done = {"cut_batch": after, "pack_shard": 16, "write": 27 // 3}[function]  # 3 writes a batch
    assert len(again) == 16 - done
    assert len(list((tmp_path / "whole/shards").glob("*.tar"))) > 3


def test_damaged_spill_of_an_earlier_run_is_cut_again(videos, tmp_path, monkeypatch):
    arguments = [str(videos), str(tmp_path / "d"), "--workers", "1"]
    with monkeypatch.context() as patch:
        patch.setattr("shards.ingest.pack_jobs", lambda *_, **__: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            main(arguments)
    spill = max((tmp_path / "d/.ingest").rglob("*.tar"), key=lambda path: path.stat().st_size)
    os.truncate(spill, spill.stat().st_size // 2)
    assert main(arguments) == 0
    assert main([str(videos), str(tmp_path / "e"), "--workers", "1"]) == 0
    assert sealed(tmp_path / "d") == sealed(tmp_path / "e")


def test_many_small_groups_are_packed_one_after_the_other(videos, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.options.find_recipe", lambda _: Recipe(name="x", group_batches=5))
    assert main([str(videos), str(tmp_path / "d"), "--workers", "1"]) == 0
    manifest = load_manifest(LocalStore(str(tmp_path / "d")))
    assert [shard.name for shard in manifest.shards] == ["000000", "000001", "000002", "000003"]
    ours = {sample["__key__"]: sample["jpg"] for sample in read_with_webdataset(tmp_path / "d")}
    assert ours == {sample["__key__"]: sample["jpg"] for sample in read_with_webdataset(dataset)}


def test_other_videos_or_recipe_at_the_same_place_are_refused_unless_fresh(
    dataset, videos, tmp_path, capsys
):
    (tmp_path / "d").mkdir()
    for name, data in contents(dataset).items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(data)
    other = [str(videos), str(tmp_path / "d"), "--workers", "1", "--stabilizer", "lk"]
    assert main(other) == 2
    said = capsys.readouterr().err
    assert "another recipe" in said
    assert "--fresh" in said
    assert sealed(tmp_path / "d") == sealed(dataset)
    (tmp_path / "d/shards/mine.txt").write_text("keep")
    assert main([*other, "--fresh"]) == 0
    assert load_manifest(LocalStore(str(tmp_path / "d"))).recipe["stabilizer"] == "lk"
    assert (tmp_path / "d/shards/mine.txt").read_text() == "keep"


def test_clips_of_one_video_are_spread_over_shards(videos, tmp_path):
    assert main([str(videos), str(tmp_path / "d"), "--workers=1", "--shard-mib=1"]) == 0
    few = load_manifest(LocalStore(str(tmp_path / "d")))
    arguments = [str(videos), str(tmp_path / "e"), "--workers=1", "--shard-mib=1", "--encoding=u8"]
    assert main(arguments) == 0
    manifest = load_manifest(LocalStore(str(tmp_path / "e")))
    assert manifest.samples == few.samples
    sizes = [shard.samples for shard in manifest.shards]
    assert len(sizes) > 3
    assert max(sizes) - min(sizes) <= 1
    keys = [
        [m.key for m in parse_index((tmp_path / "e" / s.index).read_bytes(), where="")]
        for s in manifest.shards
    ]
    assert [sorted(shard) for shard in keys] == keys
    by_source = [{key.split("_")[0] for key in shard} for shard in keys]
    assert len(set().union(*by_source)) > max(len(sources) for sources in by_source)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{videos}", "{dst}", "--recipe", "flikr"], "did you mean 'flickr'"),
        (["{videos}", "{dst}", "--stabilizer", "surf"], "choose one of sift, sift320, lk"),
        (["{videos}", "{dst}", "--encoding", "png"], "choose one of jpg, u8"),
        (["{videos}", "{dst}", "--shard-mib", "0"], "must be at least 1"),
        (["{dst}/none", "{dst}"], "no such folder"),
        (["{empty}", "{dst}"], "no videos"),
        (["{videos}", "gs://bucket/x"], "only local paths and s3://"),
    ],
)
def test_wrong_call_exits_2_and_says_what_is_valid(videos, tmp_path, capsys, arguments, said):
    (tmp_path / "empty").mkdir()
    places = {"videos": videos, "dst": tmp_path / "d", "empty": tmp_path / "empty"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "d").exists()


def test_nothing_kept_exits_1_with_the_reasons(tmp_path, film, capsys):
    film(tmp_path / "v/four.mp4", [0, 40, 80, 120])
    assert main([str(tmp_path / "v"), str(tmp_path / "d"), "--workers", "1"]) == 1
    said = capsys.readouterr().err
    assert "videos too_short 1" in said
    assert "report.json" in said
    assert (tmp_path / "d/report.json").exists()
    assert not (tmp_path / "d/manifest.json").exists()


def test_list_entry_that_is_missing_is_counted(tmp_path, panning, capsys):
    panning(tmp_path / "a.mp4", 40)
    (tmp_path / "list.txt").write_text("a.mp4\ngone.mp4\n")
    assert main([str(tmp_path / "list.txt"), str(tmp_path / "d"), "--workers", "1"]) == 0
    assert fates(tmp_path / "d")["gone.mp4"]["reason"] == "missing"
    assert "missing" in capsys.readouterr().out
