"""KTH by its own names and list of sequences, on a small tree of rendered people."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from shards import stats
from shards.dataset import open_dataset
from shards.direction import WAYS
from shards.ingest import main
from shards.preview import main as preview
from shards.preview import some_clips

# person, action, condition: pixels a frame to the right. The running one is gone after 20 frames.
CAST = {
    (1, "walking", 1): 1.6,
    (1, "running", 1): -5.0,
    (2, "walking", 3): -1.6,
    (3, "jogging", 2): 3.0,
    (3, "boxing", 4): 0.0,
}
FRAMES = 46
HEAD = "This database contains sequences of six classes\n\nTraining:   person11, 12\n\n"


def name_of(person, action, condition):
    return f"person{person:02d}_{action}_d{condition}_uncomp.avi"


@pytest.fixture(scope="module")
def films(tmp_path_factory, crossing, avi):
    """The videos in class folders, as the zips unpack, without 00sequences.txt."""
    root = tmp_path_factory.mktemp("kth")
    for seed, ((person, action, condition), speed) in enumerate(CAST.items()):
        x = 80 - speed * (10 if action == "running" else FRAMES / 2)
        frames = crossing(FRAMES, speed=speed, x=x, seed=seed)
        if action == "running":
            frames[20:] = crossing(26, speed=0, x=-300, seed=seed)
        avi(root / action / name_of(person, action, condition), frames)
    return root


@pytest.fixture
def listed(films, tmp_path):
    """The same with 00sequences.txt, in the words of the real one, to be made wrong."""
    root = tmp_path / "src"
    root.mkdir()
    for folder in films.iterdir():
        (root / folder.name).mkdir()
        for film in folder.iterdir():
            (root / folder.name / film.name).symlink_to(film)
    (root / "00sequences.txt").write_text(
        HEAD + "person01_running_d1\t\tframes\t1-26\n"
        "person01_walking_d1\t\tframes\t1-15, 21-46\n\n"
        "person02_walking_d3    \tframes\t22-46, 1-24\n"
        "person03_boxing_d4\t\tframes\t1-106\n"
        "person03_jogging_d2\t\tframes\t1-9, 10-25\n"
        "person13_handclapping_d3\t*missing*\n"
    )
    return root


def call(src, dst, *options):
    return main([str(src), str(dst), "--recipe", "kth", "--workers", "1", *map(str, options)])


def shown(root):
    made = open_dataset(str(root))
    return made, list(some_clips(made.store, made.manifest, made.samples))


def test_clips_are_grey_squashed_frames_with_captions_and_ways(films, tmp_path):
    assert call(films, tmp_path / "d", "--encoding", "u8") == 0
    made, clips = shown(tmp_path / "d")
    assert made.manifest.clip.shape == (10, 120, 120, 1)
    assert made.manifest.clip.fps == 25
    captions = {}
    for _, note in clips:
        captions.setdefault(note["source"], set()).add(note["caption"])
    for (person, action, condition), speed in CAST.items():
        way = f" {WAYS[0] if speed > 0 else WAYS[1]}" if speed else ""
        said = captions[f"{action}/{name_of(person, action, condition)}"]
        assert said == {f"person {person} is {action}{way}"}
    for clip, note in clips:
        with av.open(films / note["source"]) as file:
            frames = [f.to_ndarray(format="gray") for f in file.decode(video=0)]
        start = note["start_frame"]
        for kept, frame in zip(clip, frames[start : start + 10], strict=True):
            squashed = cv2.resize(frame, (120, 120), interpolation=cv2.INTER_AREA)
            assert np.abs(kept[..., 0].astype(int) - squashed).mean() < 2


def test_empty_frames_are_counted_and_words_and_attributes_too(films, tmp_path, capsys):
    assert call(films, tmp_path / "d") == 0
    assert "rejected       2   nobody_moves" in capsys.readouterr().out
    made, clips = shown(tmp_path / "d")
    report = json.loads((tmp_path / "d/report.json").read_text())
    fates = {Path(v["source"]).name: v for v in report["videos"]}
    ran = fates[name_of(1, "running", 1)]
    assert [(start, reason) for start, reason, _ in ran["rejected"]] == [
        (20, "nobody_moves"),
        (30, "nobody_moves"),
    ]
    words = sorted({word for _, note in clips for word in note["caption"].split()})
    assert made.words == words
    counts = made.manifest.counts
    assert counts["word person"] == made.samples == counts["clips_kept"]
    # Boxing has no direction, so that not every clip has this attribute.
    assert made.attributes == {
        "action": ["boxing", "jogging", "running", "walking"],
        "person": ["01", "02", "03"],
    }
    assert counts["attribute person 01"] == 4 + 2
    assert made.labels == made.attributes["action"]
    assert counts["label running"] == 2


def test_walking_and_running_alone_make_the_dataset_of_the_captions(films, tmp_path):
    assert call(films, tmp_path / "d", "--actions", "walking,running") == 0
    made, clips = shown(tmp_path / "d")
    assert made.attributes["direction"] == list(WAYS)
    assert made.labels == ["running", "walking"]
    assert made.words == ["1", "2", "is", "left", "person", "right", "running", "to", "walking"]
    assert made.manifest.recipe["actions"] == ["running", "walking"]
    assert all(note["attributes"]["direction"] in note["caption"] for _, note in clips)


def test_sequences_say_which_frames_count_and_what_is_missing(listed, tmp_path):
    with (listed / "00sequences.txt").open("a") as file:
        file.write("person25_boxing_d1\t\tframes\t1-95\nperson25_handwaving_d1\tframes\t1-9\n")
    assert call(listed, tmp_path / "d") == 0
    _, clips = shown(tmp_path / "d")
    starts = {}
    for _, note in clips:
        starts.setdefault(note["source"].split("/")[1], []).append(note["start_frame"])
    assert {name: sorted(found) for name, found in starts.items()} == {
        name_of(1, "running", 1): [0, 10],
        name_of(1, "walking", 1): [0, 20, 30],
        name_of(2, "walking", 3): [0, 10, 24, 34],  # frames 22 to 24 are in both runs
        name_of(3, "jogging", 2): [9],
        name_of(3, "boxing", 4): [0, 10, 20, 30],  # more are listed than there are
    }
    report = json.loads((tmp_path / "d/report.json").read_text())
    missing = [v["source"] for v in report["videos"] if v["reason"] == "missing"]
    assert missing == ["boxing/person25_boxing_d1_uncomp.avi"]  # of actions that are there


def test_other_sequences_are_another_dataset_and_a_rerun_gives_the_same_bytes(
    listed, tmp_path, capsys
):
    assert call(listed, tmp_path / "a") == call(listed, tmp_path / "b") == 0
    made = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.name != "report.json"}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert made[0] == made[1]
    text = (listed / "00sequences.txt").read_text()
    (listed / "00sequences.txt").write_text(text.replace("1-26", "1-25"))
    assert call(listed, tmp_path / "a") == 2
    assert "holds a dataset of other videos" in capsys.readouterr().err


def test_grey_jpegs_can_be_previewed_and_measured(films, tmp_path, capsys):
    assert call(films, tmp_path / "d", "--actions", "walking", "--size", "64") == 0
    assert preview([str(tmp_path / "d"), "--out", str(tmp_path / "seen")]) == 0
    assert (tmp_path / "seen/clips.png").stat().st_size > 1000
    assert stats.main([str(tmp_path / "d"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["clip"] == [10, 64, 64, 1]
    assert figures["encoding"] == "jpg vertical strip, q95 grey"
    assert not any(" " in name for name in figures["counts"])
    made, clips = shown(tmp_path / "d")
    for person in ("01", "02"):
        mine = sum(note["attributes"]["person"] == person for _, note in clips)
        assert figures["attributes"]["person"][person] == mine
    assert figures["words"]["walking"] == made.samples
    assert stats.main([str(tmp_path / "d")]) == 0
    said = capsys.readouterr().out
    assert "clips of each direction" in said
    assert "8 words in captions; most often" in said


def test_copies_are_counted_in_no_word_and_no_attribute(films, tmp_path, avi):
    for person in (1, 4):
        path = tmp_path / "src" / name_of(person, "walking", 1)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(films / "walking" / name_of(1, "walking", 1))
    assert call(tmp_path / "src", tmp_path / "d", "--duplicate-bits", "0") == 0
    made, clips = shown(tmp_path / "d")
    assert len(clips) == 4
    [person] = {note["attributes"]["person"] for _, note in clips}
    other = {"01": "04", "04": "01"}[person]
    assert made.manifest.counts[f"attribute person {person}"] == 4
    assert made.manifest.counts[f"attribute person {other}"] == 0
    assert str(int(person)) in made.words
    assert str(int(other)) not in made.words


NAMES = {
    "no person 26": "person26_walking_d1_uncomp.avi",
    "no condition 5": "person01_walking_d5_uncomp.avi",
    "no such action": "person01_hopping_d1_uncomp.avi",
    "another dataset's": "v_Archery_g01_c01.avi",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_name_that_is_not_of_kth_exits_2(listed, tmp_path, capsys, name):
    (listed / name).touch()
    assert call(listed, tmp_path / "d") == 2
    said = capsys.readouterr().err
    assert "1 of 6 videos are not named as KTH's, person01_walking_d1_uncomp.avi" in said
    assert name in said
    assert not (tmp_path / "d").exists()


LINES = {
    "no frames": ("person04_boxing_d1\t1-95", "line 12: 'person04_boxing_d1\\t1-95' is not a line"),
    "backwards": ("person04_boxing_d1\tframes\t95-1", "line 12: 95-1: frames count from 1"),
    "from nought": ("person04_boxing_d1\tframes\t0-9", "line 12: 0-9: frames count from 1"),
    "twice": ("person03_boxing_d4\tframes\t1-9", "line 12: person03_boxing_d4 occurs twice"),
}


@pytest.mark.parametrize(("line", "said"), LINES.values(), ids=LINES)
def test_wrong_line_of_the_sequences_exits_2_and_is_named(listed, tmp_path, capsys, line, said):
    with (listed / "00sequences.txt").open("a") as file:
        file.write(line + "\n")
    assert call(listed, tmp_path / "d") == 2
    assert f"00sequences.txt, {said}" in capsys.readouterr().err


def test_sequences_that_do_not_fit_the_videos_exit_2(listed, tmp_path, capsys):
    (listed / "00sequences.txt").write_text(HEAD)
    assert call(listed, tmp_path / "d") == 2
    assert "no line says where a person is" in capsys.readouterr().err
    (listed / "00sequences.txt").write_text("person03_boxing_d4\tframes\t1-106\n")
    assert call(listed, tmp_path / "d") == 2
    assert "has no frames of 4 of 5 videos" in capsys.readouterr().err


def test_same_video_twice_and_absent_actions_exit_2(listed, tmp_path, capsys):
    (listed / name_of(1, "walking", 1)).touch()
    assert call(listed, tmp_path / "d") == 2
    assert "are the same video of KTH" in capsys.readouterr().err
    (listed / name_of(1, "walking", 1)).unlink()
    assert call(listed, tmp_path / "d", "--actions", "walking,handwaving") == 2
    assert "no video of handwaving, for instance person01_handwaving_d1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe=kth", "--actions=walking,runing"], "'runing' is none of"),
        (["--recipe=strips", "--actions=walking"], "--actions is of recipe 'kth'"),
        (["--recipe=kth", "--stabilizer=lk"], "--stabilizer none or --fit crop"),
        (["--recipe=kth", "--fit=stretch"], "choose one of crop, squash, pad"),
        (["--recipe=kth", "--frames=0"], "frames=0: must be at least 1"),
        (["--recipe=kth", "--split=00sequences.txt"], "such file"),
    ],
)
def test_option_that_the_recipe_does_not_take_exits_2(listed, capsys, tmp_path, options, said):
    assert main([str(listed), str(tmp_path / "d"), *options]) == 2
    assert said in capsys.readouterr().err


def test_folder_that_is_not_there_exits_2(tmp_path, capsys):
    assert call(tmp_path / "none", tmp_path / "d") == 2
    assert "no such folder" in capsys.readouterr().err
