"""Importing clips that others have cut: strips with class folders, and the MIT's archives."""

import io
import json
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from shards.ingest import main
from shards.manifest import load_manifest
from shards.preview import some_clips
from shards.recipe import RECIPES
from shards.storage import LocalStore
from shards.strips import clips_of, read_strip
from shards.video import VideoRejectedError


def tiles(count, size, seed=0):
    """(count, size, size, 3): smooth, so that JPEG keeps them, each of another brightness."""
    draw = np.random.default_rng(seed).integers(60, 180, (count, 2, 2, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(t).resize((size, size), 2)) for t in draw])


def strip(frames, kind="JPEG", across=False, alpha=False):
    count, size = frames.shape[:2]
    sheet = frames.reshape(count * size, size, 3)
    if across:
        sheet = frames.swapaxes(0, 1).reshape(size, count * size, 3)
    picture = Image.fromarray(sheet)
    if alpha:
        picture.putalpha(255)
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {}))
    return file.getvalue()


def kept(root):
    store = LocalStore(str(root))
    manifest = load_manifest(store)
    return {
        (note.get("entry") or note["source"], note["start_frame"]): (clip, note)
        for clip, note in some_clips(store, manifest, manifest.samples)
    }


@pytest.fixture
def archive(tmp_path):
    """`golf.tar.bz2` and its list, of which one entry is missing and one is damaged."""
    folder = tmp_path / "src"
    folder.mkdir()
    made = {"v/a.mp4/0000.jpg": 34, "v/a.mp4/0001.jpg": 16, "v/b.mp4/0000.jpg": 15}
    with tarfile.open(folder / "golf.tar.bz2", "w:bz2") as tar:
        for number, (name, count) in enumerate(made.items()):
            add(tar, name, strip(tiles(count, 128, number)))
        add(tar, "v/c.mp4/0000.jpg", strip(tiles(34, 128, 9))[:3000])
        add(tar, "v/unlisted.mp4/0000.jpg", strip(tiles(34, 128, 10)))
    lines = [*made, "v/c.mp4/0000.jpg", "v/gone.mp4/0000.jpg"]
    (folder / "golf.txt").write_text("\n".join(f"{line} 1" for line in lines))
    return folder


def add(tar, name, data):
    info = tarfile.TarInfo(f"./{name}")
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_tinyvideo_halves_listed_tiles_and_repeats_the_last_of_a_short_one(archive, tmp_path):
    dst = tmp_path / "d"
    call = [str(archive), str(dst), "--recipe", "tinyvideo", "--workers", "1", "--encoding", "u8"]
    assert main(call) == 0
    clips = kept(dst)
    assert set(clips) == {("v/a.mp4/0000.jpg", 0), ("v/a.mp4/0001.jpg", 0)}
    for number, count in ((0, 34), (1, 16)):
        clip, note = clips[f"v/a.mp4/000{number}.jpg", 0]
        stored = Image.open(io.BytesIO(strip(tiles(count, 128, number))))
        blocks = np.asarray(stored).reshape(count, 64, 2, 64, 2, 3).mean((2, 4))
        wanted = blocks[np.minimum(np.arange(32), count - 1)]
        assert np.abs(clip - wanted).max() <= 0.5
        assert note["frames"] == min(count, 32)
        assert note["source"] == "golf.tar.bz2"
    [fate] = json.loads((dst / "report.json").read_text())["videos"]
    assert [(reason, detail.split(":")[0]) for _, reason, detail in fate["rejected"]] == [
        ("too_short", "v/b.mp4/0000.jpg"),
        ("not_picture", "v/c.mp4/0000.jpg"),
        ("missing", "v/gone.mp4/0000.jpg"),
    ]


def test_archives_in_class_folders_make_one_dataset_of_these_classes(tmp_path):
    for seed, scene in enumerate(("beach", "golf")):
        (tmp_path / "mit" / scene).mkdir(parents=True)
        with tarfile.open(tmp_path / "mit" / scene / f"{scene}.tar.bz2", "w:bz2") as tar:
            for n in range(seed + 1):
                add(tar, f"{scene}/{n}.jpg", strip(tiles(32, 128, 10 * seed + n)))
    call = [str(tmp_path / "mit"), str(tmp_path / "d"), "--recipe", "tinyvideo", "--workers", "1"]
    assert main(call) == 0
    counts = load_manifest(LocalStore(str(tmp_path / "d"))).counts
    assert (counts["label beach"], counts["label golf"]) == (1, 2)
    labels = {name: note["labels"] for (name, _), (_, note) in kept(tmp_path / "d").items()}
    assert labels == {"beach/0.jpg": ["beach"], "golf/0.jpg": ["golf"], "golf/1.jpg": ["golf"]}


def test_archive_cut_off_in_the_middle_keeps_what_came_before_and_says_so(archive, tmp_path):
    whole = archive / "golf.tar.bz2"
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 3 // 5])
    (archive / "golf.txt").unlink()
    rest = io.BytesIO()
    with tarfile.open(fileobj=rest, mode="w") as tar:
        add(tar, "a/0000.jpg", strip(tiles(34, 128)))
        add(tar, "a/0001.jpg", strip(tiles(34, 128, 1)))
    (archive / "beach.tar").write_bytes(rest.getvalue()[:-90_000])
    call = [str(archive), str(tmp_path / "d"), "--recipe", "tinyvideo", "--workers", "1"]
    assert main(call) == 0
    report = json.loads((tmp_path / "d/report.json").read_text())["videos"]
    fates = {video["source"]: (video["clips"], video["reason"], video["note"]) for video in report}
    assert fates["beach.tar"][0] == 1
    assert "unexpected end" in fates["beach.tar"][2]
    assert fates["golf.tar.bz2"][1] == "not_archive"


KILLED = """
import os, signal, sys
from shards import cut
from shards.ingest import main

most, done, read = int(sys.argv[1]), 0, cut.read_strip

def counted(data):
    global done
    if done == most:
        os.kill(os.getpid(), signal.SIGKILL)
    done += 1
    return read(data)

cut.COMMIT_BYTES, cut.read_strip = 600_000, counted  # two clips
status = main(sys.argv[2:])
print("read", done)
sys.exit(status)
"""


def test_archive_killed_again_and_again_goes_on_behind_what_was_committed(tmp_path):
    """Four deaths in one source: only those without any progress between them would reject it."""
    with tarfile.open(tmp_path / "beach.tar", "w") as tar:
        for number in range(13):
            data = strip(tiles(34, 128, number))
            add(tar, f"a/{number:04d}.jpg", data[:2000] if number == 4 else data)
    arguments = ["--recipe", "tinyvideo", "--workers", "1", "--encoding", "u8", "--shard-mib", "1"]
    call = [str(tmp_path / "beach.tar"), str(tmp_path / "whole"), *arguments]
    assert main(call) == 0
    call[1] = str(tmp_path / "d")
    for _ in range(4):
        killed = subprocess.run([sys.executable, "-c", KILLED, "3", *call], check=False)
        assert killed.returncode == -signal.SIGKILL
    last = [sys.executable, "-c", KILLED, "99", *call]
    done = subprocess.run(last, check=True, capture_output=True, text=True)
    # Two clips are committed each time, and with the second two the damaged entry between them.
    assert int(done.stdout.rpartition("read ")[2]) == 13 - (2 + 3 + 2 + 2)
    made, whole = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.name != "report.json"}
        for root in (tmp_path / "d", tmp_path / "whole")
    )
    assert made == whole
    reports = [json.loads((tmp_path / each / "report.json").read_text()) for each in ("d", "whole")]
    for report in reports:
        assert report["videos"][0].pop("cpu_s")
    assert reports[0] == reports[1]


def test_archive_that_cannot_be_read_on_is_not_taken_for_a_short_one(tmp_path, monkeypatch, capsys):
    with tarfile.open(tmp_path / "beach.tar", "w") as tar:
        for number in range(3):
            add(tar, f"a/{number:04d}.jpg", strip(tiles(34, 128, number)))
    parts = [(tmp_path / "beach.tar").read_bytes()[:300_000]]

    def broken(*_):
        yield from parts
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr("shards.strips.parts_of", broken)
    call = [str(tmp_path / "beach.tar"), str(tmp_path / "d"), "--recipe", "tinyvideo"]
    assert main([*call, "--workers", "1"]) == 1
    assert "connection reset" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([*call, "--workers", "1"]) == 0
    assert len(kept(tmp_path / "d")) == 3


@pytest.mark.parametrize("across", [True, False], ids=["horizontal", "vertical"])
@pytest.mark.parametrize("alpha", [True, False], ids=["RGBA PNG", "JPEG"])
def test_strip_of_either_direction_gives_its_frames(across, alpha):
    frames = tiles(5, 32)
    data = strip(frames, "PNG" if alpha else "JPEG", across, alpha)
    assert np.abs(read_strip(data).astype(int) - frames).max() <= (0 if alpha else 4)


@pytest.mark.parametrize(("size", "reason"), [((100, 64), "not_strip"), ((0, 0), "not_picture")])
def test_picture_that_is_no_strip_is_rejected_as_such(size, reason):
    file = io.BytesIO()
    if size[0]:
        Image.new("RGB", size).save(file, "PNG")
    with pytest.raises(VideoRejectedError) as caught:
        read_strip(file.getvalue())
    assert caught.value.reason == reason


def test_long_strip_gives_consecutive_clips_and_leaves_out_the_rest():
    frames = tiles(70, 64)
    found = list(clips_of(frames, RECIPES["strips"]))
    assert [start for start, _ in found] == [0, 32]
    assert (found[1][1] == frames[32:64]).all()
    with pytest.raises(VideoRejectedError, match="31 frames"):
        list(clips_of(frames[:31], RECIPES["strips"]))


def test_real_action_strips_keep_class_and_pixels(shared_data, tmp_path):
    src = shared_data / "weizmann_strips"
    call = [str(src), str(tmp_path / "d"), "--recipe", "strips", "--workers", "1"]
    assert main([*call, "--encoding", "u8"]) == 0
    clips = kept(tmp_path / "d")
    whole = 0
    for path in sorted(src.glob("*/*.jpg")):
        name = path.relative_to(src).as_posix()
        with Image.open(path) as picture:
            sheet = np.asarray(picture.convert("RGB"))
        assert sheet.shape[0] == 64
        for start in range(0, sheet.shape[1] // 64 - 31, 32):
            clip, note = clips[name, start]
            assert (clip[3] == sheet[:, (start + 3) * 64 : (start + 4) * 64]).all()
            assert note["labels"] == [name.split("/")[0]]
            whole += 1
    assert whole == len(clips) > 72


def test_folder_without_archives_says_what_was_looked_for(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "d"), "--recipe", "tinyvideo"]) == 2
    assert ".tar.bz2" in capsys.readouterr().err
