"""Chair CAD by its own folders, on blocks that stand off the middle and change as they turn."""

import itertools
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from shards.dataset import open_dataset
from shards.ingest import main
from shards.preview import some_clips

AZIMUTHS = [round(360 * n / 31) for n in range(1, 32)]  # 12, 23, ... 360; in the real set from 11
CHAIRS = ("1a6f615e8b1b5ae4dbbc9440457e303e", "cb867c64ea2ecb408043364ed41c1a79", "0chair")
SIZE = 80


def color(azimuth, tilt):
    """Tells the view."""
    return (azimuth // 2, 5 * tilt, 60)


def view(azimuth, tilt):
    """A block of 20 to 24 by 30, its top left at (40, 10), in white."""
    picture = np.full((SIZE, SIZE, 3), 255, np.uint8)
    picture[10:40, 40 : 60 + 4 * (azimuth % 2)] = color(azimuth, tilt)
    return picture


def render(folder, alpha=False):
    (folder / "renders").mkdir(parents=True)
    for number, (tilt, azimuth) in enumerate(itertools.product((20, 30), AZIMUTHS)):
        picture = Image.fromarray(view(azimuth, tilt))
        if alpha:  # the white is what is not there
            solid = np.full((SIZE, SIZE), 0, np.uint8)
            solid[10:40, 40 : 60 + 4 * (azimuth % 2)] = 255
            picture.putalpha(Image.fromarray(solid))
        name = f"image_{number:03d}_p{tilt:03d}_t{azimuth:03d}_r096.png"
        picture.save(folder / "renders" / name, compress_level=1)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered_chairs")
    for chair in CHAIRS:
        render(root / chair, alpha=chair == "0chair")
    (root / "all_chair_names.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    return root


@pytest.fixture
def copied(rendered, tmp_path):
    """The same, to be made wrong."""
    for chair in CHAIRS:
        folder = tmp_path / "src" / chair / "renders"
        folder.mkdir(parents=True)
        for path in (rendered / chair / "renders").iterdir():
            (folder / path.name).symlink_to(path)
    return tmp_path / "src"


def call(src, dst, *options):
    command = [str(src), str(dst), "--recipe", "chairs", "--workers", "1", "--encoding", "u8"]
    return main([*command, *map(str, options)])


def shown(root):
    made = open_dataset(str(root))
    return made, list(some_clips(made.store, made.manifest, made.samples))


def test_four_sequences_of_a_chair_turn_either_way_from_the_sixteenth_azimuth(rendered, tmp_path):
    assert call(rendered, tmp_path / "d") == 0
    made, clips = shown(tmp_path / "d")
    assert made.manifest.clip.shape == (16, 64, 64, 3)
    assert made.attributes == {
        "chair": sorted(CHAIRS),
        "rotation": ["backward", "forward"],
        "tilt": ["20", "30"],
    }
    assert made.labels == []
    assert {made.manifest.counts[f"attribute chair {chair}"] for chair in CHAIRS} == {4}
    seen = set()
    for clip, note in clips:
        about = note["attributes"]
        seen.add((about["chair"], about["rotation"], about["tilt"]))
        turn = AZIMUTHS[15:] if about["rotation"] == "forward" else AZIMUTHS[15::-1]
        assert note["views"] == turn
        wanted = [color(azimuth, int(about["tilt"])) for azimuth in turn]
        assert clip[:, 32, 30].tolist() == [list(each) for each in wanted]
    assert len(seen) == len(clips) == 12


def test_chair_fills_its_square_with_a_border_and_stays_in_its_place(rendered, tmp_path):
    assert call(rendered, tmp_path / "d") == 0
    side = round(30 / (1 - 2 / 16))  # 34, of a block 24 by 30 in all views
    top, left = 10 - 2, 40 - 5
    for clip, note in shown(tmp_path / "d")[1]:
        for small, azimuth in zip(clip, note["views"], strict=True):
            square = view(azimuth, int(note["attributes"]["tilt"]))[
                top : top + side, left : left + side
            ]
            wanted = cv2.resize(square, (64, 64), interpolation=cv2.INTER_CUBIC)
            assert np.abs(small.astype(int) - wanted).max() <= 1


def test_chair_at_the_edge_of_its_picture_gets_white_beyond(copied, tmp_path):
    for path in (copied / "0chair/renders").iterdir():
        edge = np.roll(np.asarray(Image.open(path).convert("RGB")), (-10, 16), (0, 1))
        path.unlink()
        Image.fromarray(edge).save(path)
    assert call(copied, tmp_path / "d") == 0
    at_edge, inside = ({}, {})
    for clip, note in shown(tmp_path / "d")[1]:
        about = note["attributes"]
        here = at_edge if about["chair"] == "0chair" else inside
        here[about["rotation"], about["tilt"]] = clip
    for key, clip in at_edge.items():
        assert clip[:, :3].min() > 250
        assert clip[:, :, -3:].min() > 250
        assert (clip[:, 6:60, 20:40] < 255).any(-1).all()
        assert np.abs(clip.astype(int) - inside[key]).mean() < 1


def test_one_sequence_of_each_chair_tests_and_three_train(rendered, tmp_path):
    found = {}
    for part in ("train", "test"):
        assert call(rendered, tmp_path / part, "--part", part) == 0
        made, clips = shown(tmp_path / part)
        assert made.manifest.recipe["split"] == {"of": "clips", "part": part, "test_share": 0.25}
        found[part] = [tuple(sorted(note["attributes"].items())) for _, note in clips]
    assert len(found["train"]) == 9
    assert len(found["test"]) == 3
    assert not set(found["train"]) & set(found["test"])
    assert {dict(each)["chair"] for each in found["test"]} == set(CHAIRS)


def test_drawn_sequence_is_not_the_same_one_of_every_chair():
    from shards.chairs import _of_part
    from shards.recipe import WithinSplit

    split = WithinSplit(part="test", of="clips", test_share=0.25)
    drawn = [_of_part(f"chair{n}", 4, split) for n in range(800)]
    counts = np.bincount([each for [each] in drawn], minlength=4)
    assert counts.min() > 150


def test_rerun_gives_the_same_bytes(rendered, tmp_path):
    assert call(rendered, tmp_path / "a") == call(rendered, tmp_path / "b") == 0
    made = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.name != "report.json"}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert made[0] == made[1]


def test_chair_that_cannot_be_used_is_counted_by_reason(copied, tmp_path):
    gone, damaged, *_ = CHAIRS
    next((copied / gone / "renders").glob("*_t360_*")).unlink()
    bad = next((copied / damaged / "renders").glob("*_t360_*"))
    data = bad.read_bytes()
    bad.unlink()
    bad.write_bytes(data[: len(data) // 2])
    for name in ("white", "large"):
        render(copied / name)
    for path in (copied / "white/renders").iterdir():
        Image.new("RGB", (SIZE, SIZE), "white").save(path)
    Image.new("RGB", (SIZE + 1, SIZE), "white").save(path.parents[2] / "large/renders" / path.name)
    assert call(copied, tmp_path / "d") == 0
    report = json.loads((tmp_path / "d/report.json").read_text())
    fates = {v["source"]: (v["reason"], v["detail"]) for v in report["videos"]}
    assert {chair: reason for chair, (reason, _) in fates.items()} == {
        gone: "views_missing",
        damaged: "not_picture",
        "0chair": None,
        "white": "blank",
        "large": "views_differ",
    }
    assert fates[gone][1] == (
        "61 views of 2 elevations and 31 azimuths, want 31 azimuths at each of 2"
    )
    assert fates[damaged][1].startswith(bad.name)
    made = open_dataset(str(tmp_path / "d"))
    assert made.manifest.counts[f"attribute chair {gone}"] == 0


def test_picture_that_is_no_view_and_chair_twice_exit_2(copied, tmp_path, capsys):
    (copied / "0chair/front.png").touch()
    assert call(copied, tmp_path / "d") == 2
    assert "1 of 187 pictures are not named as Chair CAD's" in capsys.readouterr().err
    (copied / "0chair/front.png").unlink()
    render(copied / "again/0chair")
    assert call(copied, tmp_path / "d") == 2
    assert "are the same chair" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--frames", "10"], "frames=10: a chair's sequences have 16"),
        (["--part", "test", "--part-of", "frames"], "recipe 'chairs' reads chairs"),
        (["--clips", "2"], "recipe 'chairs' has no choice of clips"),
    ],
)
def test_option_that_chairs_do_not_take_exits_2(rendered, tmp_path, capsys, options, said):
    assert call(rendered, tmp_path / "d", *options) == 2
    assert said in capsys.readouterr().err


def test_folder_without_pictures_exits_2(tmp_path, capsys):
    assert call(tmp_path, tmp_path / "d") == 2
    assert "no file below it ends in one of .png" in capsys.readouterr().err
