"""UCF-101 by its own names and lists, on a small tree of that layout; and every wrong list."""

import itertools
import json

import av
import cv2
import numpy as np
import pytest

from shards.dataset import open_dataset
from shards.ingest import main
from shards.preview import some_clips

CLASSES = {1: "ApplyEyeMakeup", 2: "Archery", 37: "HandstandPushups"}
FRAMES = {1: 70, 2: 33, 3: 29, 4: 12}
"""Of each class's third video fewer than a clip, as UCF-101's shortest; of its fourth too few."""


def video_of(label, number):
    spelled = "HandStandPushups" if label == "HandstandPushups" else label  # as UCF-101 has it
    return f"v_{spelled}_g{1 + number // 3:02d}_c{number:02d}.avi"


VIDEOS = [
    (label, n, video_of(label, n)) for label, n in itertools.product(CLASSES.values(), FRAMES)
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory, panning):
    """In class folders."""
    root = tmp_path_factory.mktemp("UCF-101")
    for seed, (label, number, name) in enumerate(VIDEOS):
        panning(root / label / name, FRAMES[number], seed=seed)
    return root


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Videos 1 and 4 of each class train; 2 and 3 test."""
    root = tmp_path_factory.mktemp("ucfTrainTestlist")
    classes = "".join(f"{number} {label}\r\n" for number, label in CLASSES.items())
    (root / "classInd.txt").write_text(classes)
    number = {label: n for n, label in CLASSES.items()}
    train = [f"{c}/{name} {number[c]}\r\n" for c, n, name in VIDEOS if n in (1, 4)]
    (root / "trainlist01.txt").write_text("".join(train))
    test = [f"{c}/{name}\r\n" for c, n, name in VIDEOS if n in (2, 3)]
    (root / "testlist01.txt").write_text("".join(test))
    return root


def call(src, dst, *options):
    return main([str(src), str(dst), "--recipe", "ucf101", "--workers", "1", *map(str, options)])


def notes_of(root):
    made = open_dataset(str(root))
    return [note for _, note in some_clips(made.store, made.manifest, made.samples)]


def classes_of(root):
    counts = open_dataset(str(root)).manifest.counts
    return {k.removeprefix("label "): n for k, n in counts.items() if k.startswith("label ")}


def test_lists_make_datasets_of_their_videos_with_the_same_classes(videos, lists, tmp_path):
    assert call(videos, tmp_path / "train1", "--split", lists / "trainlist01.txt") == 0
    assert call(videos, tmp_path / "test1", "--split", lists / "testlist01.txt") == 0
    train, test = notes_of(tmp_path / "train1"), notes_of(tmp_path / "test1")
    assert {note["source"] for note in train} == {f"{c}/{name}" for c, n, name in VIDEOS if n == 1}
    assert {note["source"] for note in test} == {
        f"{c}/{name}" for c, n, name in VIDEOS if n in (2, 3)
    }
    assert all(note["labels"] == [note["source"].split("/")[0]] for note in train + test)
    assert classes_of(tmp_path / "train1") == dict.fromkeys(CLASSES.values(), 2)
    assert classes_of(tmp_path / "test1") == dict.fromkeys(CLASSES.values(), 2)
    assert open_dataset(str(tmp_path / "train1")).manifest.recipe["split"]["name"] == (
        "trainlist01.txt"
    )


def test_short_video_is_kept_with_its_last_frame_repeated(videos, lists, tmp_path):
    options = ("--split", lists / "testlist01.txt", "--encoding", "u8")
    assert call(videos, tmp_path / "d", *options) == 0
    made = open_dataset(str(tmp_path / "d"))
    shown = some_clips(made.store, made.manifest, made.samples)
    short = [(clip, note) for clip, note in shown if "frames" in note]
    assert len(short) == 3
    for clip, note in short:
        assert note["frames"] == 29
        assert (clip[28:] == clip[28]).all()
        assert (clip[27] != clip[28]).any()
    report = json.loads((tmp_path / "d/report.json").read_text())
    assert {v["reason"] for v in report["videos"]} == {None}


def test_clips_are_as_filmed_unless_a_stabilizer_is_named(videos, lists, tmp_path):
    options = ("--split", lists / "trainlist01.txt", "--encoding", "u8")
    assert call(videos, tmp_path / "d", *options) == 0
    assert call(videos, tmp_path / "held", *options, "--stabilizer", "lk") == 0
    assert {note["stabilizer"] for note in notes_of(tmp_path / "d")} == {None}
    assert {note["stabilizer"]["backend"] for note in notes_of(tmp_path / "held")} == {"lk"}
    assert difference(videos, tmp_path / "d") < 5 < 20 < difference(videos, tmp_path / "held")


def difference(videos, root):
    """Grey levels between the clips and their videos' frames, cropped to the centre and scaled."""
    made, found = open_dataset(str(root)), []
    for clip, note in some_clips(made.store, made.manifest, made.samples):
        with av.open(videos / note["source"]) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        start = note["start_frame"]
        for frame, kept in zip(frames[start:], clip, strict=False):
            square = frame[:, 12:84]  # of 96x72
            small = cv2.resize(square, (64, 64), interpolation=cv2.INTER_AREA)
            found.append(np.abs(kept.astype(int) - small).mean())
    return np.mean(found)


def test_videos_all_in_one_folder_are_found_and_classed_by_name(videos, lists, tmp_path):
    for path in videos.rglob("*.avi"):
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / path.name.lower()).symlink_to(path)
    assert call(tmp_path / "flat", tmp_path / "d", "--split", lists / "trainlist01.txt") == 0
    assert classes_of(tmp_path / "d") == dict.fromkeys(CLASSES.values(), 2)
    assert {note["labels"][0] for note in notes_of(tmp_path / "d")} == set(CLASSES.values())


def test_without_a_list_every_video_is_taken(videos, tmp_path):
    assert call(videos, tmp_path / "d") == 0
    assert classes_of(tmp_path / "d") == dict.fromkeys(CLASSES.values(), 4)
    report = json.loads((tmp_path / "d/report.json").read_text())
    assert report["counts"]["videos_rejected_too_short"] == len(CLASSES)


def test_absent_video_is_counted_and_reported_and_other_lists_are_other_datasets(
    videos, lists, tmp_path, capsys
):
    (tmp_path / "src").mkdir()
    for path in videos.iterdir():
        (tmp_path / "src" / path.name).mkdir()
        for video in path.iterdir():
            (tmp_path / "src" / path.name / video.name).symlink_to(video)
    gone = "Archery/v_Archery_g02_c03.avi"
    (tmp_path / "src" / gone).unlink()
    assert call(tmp_path / "src", tmp_path / "d", "--split", lists / "testlist01.txt") == 0
    assert "rejected       1   missing" in capsys.readouterr().out
    report = json.loads((tmp_path / "d/report.json").read_text())
    assert [v["source"] for v in report["videos"] if v["reason"] == "missing"] == [gone]
    assert classes_of(tmp_path / "d")["Archery"] == 1
    assert call(tmp_path / "src", tmp_path / "d", "--split", lists / "trainlist01.txt") == 2
    assert "holds a dataset of other videos" in capsys.readouterr().err


@pytest.fixture
def empty(tmp_path):
    """SRC with all videos of two classes, empty ones; a list of them to be made wrong."""
    for label, name in itertools.product(("Archery", "Biking"), ("g01_c01", "g01_c02", "g02_c01")):
        path = tmp_path / "src" / label / f"v_{label}_{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    lines = [f"{label}/v_{label}_g01_c01.avi {n}\n" for n, label in ((1, "Archery"), (2, "Biking"))]
    (tmp_path / "trainlist01.txt").write_text("".join(lines))
    return tmp_path


LINES = {
    "a list of something else": ("golf/0001.jpg 1", "line 3: 'golf/0001.jpg 1' is not a line of"),
    "classInd.txt itself": ("1 Archery", "line 3: '1 Archery' is not a line of"),
    "no video": ("\ufffd\x00\x01", "is not a line of"),
    "three words": ("Archery/v_Archery_g01_c02.avi 1 2", "is not a line of"),
    "class unknown": (
        "Archry/v_Archry_g01_c01.avi 1",
        "not in classInd.txt; did you mean 'Archery'",
    ),
    "number of another": ("Archery/v_Archery_g01_c02.avi 2", "is of Archery, but 2 is Biking in"),
    "number of none": (
        "Archery/v_Archery_g01_c02.avi 102",
        "is of Archery, but 102 is no class in",
    ),
    "folder of another": ("Biking/v_Archery_g01_c02.avi 1", "is not of class 'Biking'"),
}


@pytest.mark.parametrize(("line", "said"), LINES.values(), ids=LINES)
def test_wrong_line_of_a_list_exits_2_and_is_named(empty, capsys, line, said):
    with (empty / "trainlist01.txt").open("a") as file:
        file.write(line)
    refused(empty, capsys, "trainlist01.txt, line 3: ", said)


CHANGES = {
    "no list": ({"trainlist01.txt": None}, "trainlist01.txt: no such file"),
    "no classInd": ({"classInd.txt": None}, "there is no classInd.txt beside it"),
    "empty list": ({"trainlist01.txt": "\n"}, "no video is listed in it"),
    "classInd of words": (
        {"classInd.txt": "Archery\nBiking"},
        "classInd.txt, line 1: 'Archery' is",
    ),
    "number twice": ({"classInd.txt": "1 Archery\n1 Biking"}, "line 2: number 1 or class 'Biking'"),
    "class without a line": (
        {"classInd.txt": "1 Archery\n2 Biking\n3 Diving"},
        "no video of 1 of the 3 classes of classInd.txt is both listed by trainlist01.txt and",
    ),
    "class without a file": ({"src/Biking/v_Biking_g01_c01.avi": None}, ": Biking; to use a part"),
    "none there": (
        {"src/Biking/v_Biking_g01_c01.avi": None, "src/Archery/v_Archery_g01_c01.avi": None},
        "none of the 2 videos that trainlist01.txt lists is there",
    ),
    "one twice": ({"src/x/V_biking_g01_c01.avi": ""}, "are the same video"),
}


@pytest.mark.parametrize(("files", "said"), CHANGES.values(), ids=CHANGES)
def test_list_that_does_not_fit_its_folder_exits_2(empty, capsys, files, said):
    for name, text in files.items():
        if text is None:
            (empty / name).unlink()
        else:
            (empty / name).parent.mkdir(exist_ok=True)
            (empty / name).write_text(text)
    refused(empty, capsys, said)


def test_too_many_absent_videos_exit_2_with_their_number(empty, capsys):
    lines = [f"Archery/v_Archery_g09_c{n}.avi\n" for n in range(43)]
    with (empty / "trainlist01.txt").open("a") as file:
        file.write("".join(lines))
    refused(empty, capsys, "43 of the 45 videos", "at most 2 may be: Archery/v_Archery_g09_c0.avi")


def refused(folder, capsys, *said):
    split = ("--split", folder / "trainlist01.txt")
    assert call(folder / "src", folder / "d", *split) == 2
    error = capsys.readouterr().err
    for part in said:
        assert part in error
    assert "Traceback" not in error
    assert not (folder / "d").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe=strips", "--split={0}/trainlist01.txt"], "--split is of recipe 'ucf101'"),
        (["--recipe=ucf101", "--part=train"], "--split trainlist01.txt, not --part"),
        (["--part=test", "--split={0}/trainlist01.txt"], "only one of them"),
        (["--recipe=ucf101", "--split={0}/src"], "Is a directory"),
    ],
)
def test_split_that_the_recipe_does_not_take_exits_2(empty, capsys, options, said):
    arguments = [option.format(empty) for option in options]
    assert main([str(empty / "src"), str(empty / "d"), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_folder_of_other_names_exits_2_without_a_list(empty, capsys):
    (empty / "src/holiday.avi").touch()
    assert call(empty / "src", empty / "d") == 2
    assert "1 of 7 videos are not named as UCF-101's" in capsys.readouterr().err
