"""Weizmann by its own names, and the cut of every film into its first and its last frames."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.dataset import open_dataset
from shards.ingest import main
from shards.preview import some_clips
from shards.recipe import Recipe, WithinSplit
from shards.sources import Source
from shards.video import VideoRejectedError
from shards.windows import first_frames

FILMS = {"daria_walk": 60, "lena_walk1": 45, "lena_walk2": 46, "denis_wave1": 61, "eli_wave2": 29}
SIZE = (180, 144)


@pytest.fixture(scope="module")
def films(tmp_path_factory, avi):
    """Every frame is of one brightness, four times its number and eight."""
    root = tmp_path_factory.mktemp("weizmann")
    for name, count in FILMS.items():
        grey = np.arange(count, dtype=np.uint8)[:, None, None, None] * 4 + 8
        avi(root / f"{name}.avi", np.broadcast_to(grey, (count, SIZE[1], SIZE[0], 3)))
    return root


def call(src, dst, *options, recipe="weizmann"):
    command = [str(src), str(dst), "--recipe", recipe, "--workers", "1", "--encoding", "u8"]
    return main([*command, *map(str, options)])


def shown(root):
    made = open_dataset(str(root))
    return made, list(some_clips(made.store, made.manifest, made.samples))


def numbers(clip):
    return np.round((clip.mean((1, 2, 3)) - 6.5) / 4).astype(int).tolist()


def test_two_thirds_of_every_film_train_and_the_rest_tests(films, tmp_path):
    seen = {}
    for part in ("train", "test"):
        assert call(films, tmp_path / part, "--part", part) == 0
        made, clips = shown(tmp_path / part)
        assert made.manifest.clip.shape == (10, 64, 64, 3)
        for clip, note in clips:
            start = note["start_frame"]
            assert numbers(clip) == list(range(start, start + 10))
            seen.setdefault((part, note["source"].removesuffix(".avi")), []).append(start)
        assert made.manifest.recipe["split"] == {"of": "frames", "part": part, "test_share": 1 / 3}
        assert made.attributes == {
            "action": ["walk", "wave1", "wave2"],
            "person": ["daria", "denis", "eli", "lena"],
        }
    for name, count in FILMS.items():
        border = round(count * 2 / 3)
        train, test = seen["train", name], seen["test", name]
        assert max(train) + 10 <= border <= min(test)
        assert max(test) + 10 <= count
        assert len(set(train)) == len(train) == min(20, border - 9)
        assert len(set(test)) == len(test) == min(20, count - border - 9)


def test_names_give_person_and_action_and_twice_done_is_once(films, tmp_path):
    assert call(films, tmp_path / "d") == 0
    made, clips = shown(tmp_path / "d")
    told = {note["source"].removesuffix(".avi"): note for _, note in clips}
    assert told["lena_walk1"]["attributes"] == {"person": "lena", "action": "walk"}
    assert told["lena_walk2"]["attributes"] == told["lena_walk1"]["attributes"]
    assert told["denis_wave1"]["labels"] == ["wave1"]
    assert made.manifest.counts["label walk"] == 60
    assert made.words == []
    assert made.manifest.recipe["clips"] == 20


def test_clips_may_follow_one_another_and_be_of_another_length(films, tmp_path):
    assert call(films, tmp_path / "d", "--clips", "0", "--frames", "12", "--part", "test") == 0
    made, clips = shown(tmp_path / "d")
    starts = {note["source"]: note["start_frame"] for _, note in clips}
    assert starts == {  # the last thirds have 20, 15, 15, 20 and 10 frames
        "daria_walk.avi": 40,
        "lena_walk1.avi": 30,
        "lena_walk2.avi": 31,
        "denis_wave1.avi": 41,
    }
    assert made.manifest.counts["label wave2"] == 0
    report = json.loads((tmp_path / "d/report.json").read_text())
    [short] = [v for v in report["videos"] if v["reason"]]
    assert (short["reason"], short["detail"]) == (
        "too_short",
        "10 frames in the test part, a clip takes 12",
    )


def test_rerun_gives_the_same_bytes_and_other_parts_are_other_datasets(films, tmp_path, capsys):
    assert call(films, tmp_path / "a", "--part", "train") == 0
    assert call(films, tmp_path / "b", "--part", "train") == 0
    made = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.name != "report.json"}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert made[0] == made[1]
    assert call(films, tmp_path / "a", "--part", "test") == 2
    assert "holds a dataset of other videos" in capsys.readouterr().err


@given(
    st.integers(0, 120),
    st.integers(1, 12),
    st.none() | st.integers(1, 30),
    st.floats(0.05, 0.95),
    st.lists(st.integers(0, 130), min_size=0, max_size=6, unique=True),
)
def test_parts_share_no_frame_and_no_clip_leaves_its_run(count, size, clips, share, edges):
    pairs = sorted(edges)[: len(edges) // 2 * 2]
    spans = tuple(zip(pairs[::2], pairs[1::2], strict=True))
    source, used = Source(name="a.avi", location="/a.avi", spans=spans), []
    for part in ("train", "test"):
        split = WithinSplit(part=part, of="frames", test_share=share)
        recipe = Recipe(name="weizmann", frames=size, clips=clips, split=split)
        try:
            starts = first_frames(source, recipe, lambda: count)
        except VideoRejectedError:  # no room for a clip
            starts = []
        frames = [set(range(start, start + size)) for start in starts]
        assert all(max(each) < count for each in frames)
        for each in frames:
            assert not spans or any(each <= set(range(*run)) for run in spans)
        if clips is None:
            assert sum(map(len, frames)) == len(set().union(*frames))
        else:
            assert len(starts) <= clips
        used.append(set().union(*frames))
    assert not used[0] & used[1]
    assert not used[0] or not used[1] or max(used[0]) < min(used[1])


def test_chosen_clips_depend_on_the_name_and_are_spread():
    def chosen(name, clips):
        recipe = Recipe(name="weizmann", frames=10, clips=clips)
        return first_frames(Source(name=name, location=name), recipe, lambda: 1009)

    assert chosen("a.avi", 100) == chosen("a.avi", 100) != chosen("b.avi", 100)
    assert set(chosen("a.avi", 20)) < set(chosen("a.avi", 100))
    assert 400 < np.mean(chosen("a.avi", 100)) < 600
    assert chosen("a.avi", 5000) == list(range(1000))


def test_real_action_strips_are_parted_by_frames(shared_data, tmp_path):
    src = shared_data / "weizmann_strips"
    found = {}
    for part in ("train", "test"):
        options = ("--part", part, "--part-of", "frames", "--frames", "10", "--clips", "3")
        assert call(src, tmp_path / part, *options, recipe="strips") == 0
        made, clips = shown(tmp_path / part)
        assert made.labels == ["0", "1", "3", "4"]
        assert made.samples == 3 * 72
        found[part] = {(note["source"], note["start_frame"]): clip for clip, note in clips}
    assert {name for name, _ in found["train"]} == {name for name, _ in found["test"]}
    for part, clips in found.items():
        for (name, start), clip in clips.items():
            with Image.open(src / name) as picture:
                sheet = np.asarray(picture.convert("RGB"))
            count = sheet.shape[1] // 64
            border = round(count * 2 / 3)
            assert start + 10 <= border if part == "train" else border <= start <= count - 10
            assert (clip[9] == sheet[:, (start + 9) * 64 : (start + 10) * 64]).all()


NAMES = ("somebody_walk.avi", "daria_wave.avi", "daria_bend1.avi", "daria_walk3.avi", "walk.avi")


@pytest.mark.parametrize("name", NAMES)
def test_name_that_is_not_of_weizmann_exits_2(films, tmp_path, capsys, name):
    (tmp_path / "src").mkdir()
    for film in (*films.iterdir(), films / name):
        (tmp_path / "src" / film.name).touch()
    assert call(tmp_path / "src", tmp_path / "d") == 2
    assert "1 of 6 films are not named as Weizmann's, daria_walk.avi" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_same_film_twice_exits_2(tmp_path, capsys):
    for folder in ("walk", "again"):
        (tmp_path / "src" / folder).mkdir(parents=True)
        (tmp_path / "src" / folder / "ido_walk.avi").touch()
    assert call(tmp_path / "src", tmp_path / "d") == 2
    assert "are the same film" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe=weizmann", "--part=train", "--part-of=films"], "choose one of sources, frames"),
        (["--recipe=weizmann", "--part-of=frames"], "are of --part train or --part test"),
        (
            ["--recipe=weizmann", "--part=test", "--together=2"],
            "--together is of --part-of sources",
        ),
        (["--recipe=weizmann", "--part=both"], "part='both': choose one of train, test"),
        (["--recipe=weizmann", "--part=test", "--test-share=1"], "must be between 0 and 1"),
        (["--recipe=weizmann", "--clips=-1"], "clips=-1: must be at least 1"),
        (
            ["--recipe=tinyvideo", "--part=test", "--part-of=frames"],
            "recipe 'tinyvideo' reads arch",
        ),
        (["--recipe=tinyvideo", "--clips=4"], "recipe 'tinyvideo' has no choice of clips"),
        (["--recipe=ucf101", "--part=test", "--part-of=frames"], "--split trainlist01.txt, not"),
    ],
)
def test_part_that_cannot_be_made_exits_2(films, tmp_path, capsys, options, said):
    assert main([str(films), str(tmp_path / "d"), *options]) == 2
    assert said in capsys.readouterr().err
