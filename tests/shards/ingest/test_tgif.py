"""TGIF by its own list, on a small folder of gifs whose every frame tells its number."""

import json

import numpy as np
import pytest
from PIL import Image

from shards.dataset import open_dataset
from shards.ingest import main
from shards.preview import some_clips

HOST = "https://38.media.tumblr.com/9f6c25cc350f12aa74a7dc386a5c4985"
GIFS = {
    "wide_500.gif": (30, (200, 100)),
    "tall_250.gif": (24, (60, 90)),
    "short_1.gif": (9, (8, 8)),
}
LISTED = [
    ("wide_500.gif", "a man is glaring, and someone with sunglasses appears."),
    ("tall_250.gif", "A cat tries to catch a mouse on a tablet"),
    ("short_1.gif", "a flash"),
    ("gone_400.gif", "somebody who has deleted it"),
    ("text_400.gif", "what the host said instead of a gif"),
    ("cut_400.gif", "only its beginning was downloaded"),
    ("wide_500.gif", "someone else describes the first one"),
]


def level(n):
    """The brightness of frame n."""
    return 20 + 7 * n


def write_gif(path, count, size):
    frames = [Image.new("L", size, level(n)) for n in range(count)]
    for n, frame in enumerate(frames):
        frame.putpixel((n % size[0], 0), 255)  # so that no two are merged
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [20 + 130 * (n % 2) for n in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, optimize=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with `data/tgif-v1.0.tsv` and `gifs/`."""
    root = tmp_path_factory.mktemp("TGIF")
    for name, (count, size) in GIFS.items():
        write_gif(root / "gifs" / name, count, size)
    write_gif(root / "gifs/unlisted.gif", 12, (20, 20))
    (root / "gifs/text_400.gif").write_text("<html>not found</html>" * 9)
    whole = (root / "gifs/wide_500.gif").read_bytes()
    (root / "gifs/cut_400.gif").write_bytes(whole[: len(whole) * 2 // 3])
    (root / "data").mkdir()
    lines = [f"{HOST}/{name}\t{sentence}\n" for name, sentence in LISTED]
    (root / "data/tgif-v1.0.tsv").write_text("".join(lines), encoding="utf-8")
    return root


def call(src, dst, *options):
    command = [str(src), str(dst), "--recipe", "tgif", "--workers", "1", "--encoding", "u8"]
    return main([*command, *map(str, options)])


def shown(root):
    made = open_dataset(str(root))
    clips = some_clips(made.store, made.manifest, made.samples)
    return made, {note["source"]: (clip, note) for clip, note in clips}


def test_gifs_are_grey_squares_with_black_edges_and_ten_frames_in_order(published, tmp_path):
    assert call(published, tmp_path / "d") == 0
    made, clips = shown(tmp_path / "d")
    assert made.manifest.clip.shape == (10, 128, 128, 1)
    for name, rows, columns in (("wide_500", 64, 128), ("tall_250", 128, 85)):
        clip, note = clips[f"{name}.gif"]
        top, left = (128 - rows) // 2, (128 - columns) // 2
        picture = clip[:, top : top + rows, left : left + columns]
        edges = clip.copy()
        edges[:, top : top + rows, left : left + columns] = 0
        assert edges.max() == 0
        seen = np.median(picture, axis=(1, 2, 3))
        assert seen == pytest.approx([level(n) for n in note["picked"]], abs=1)
        count = GIFS[f"{name}.gif"][0]
        assert len(set(note["picked"])) == 10
        assert note["picked"] == sorted(note["picked"])
        assert max(note["picked"]) < count
        assert np.ptp(np.diff(note["picked"])) > 0  # not every second or third


def test_each_sentence_is_the_caption_with_its_punctuation_apart(published, tmp_path):
    assert call(published, tmp_path / "d") == 0
    made, clips = shown(tmp_path / "d")
    wide = clips["wide_500.gif"][1]
    assert wide["caption"] == "a man is glaring , and someone with sunglasses appears ."
    assert wide["labels"] == []
    assert made.labels == []
    counts = made.manifest.counts
    assert {word for _, note in clips.values() for word in note["caption"].lower().split()} == set(
        made.words
    )
    assert counts["word a"] == 1 + 3
    assert "word flash" not in counts  # of a gif that is too short


def test_what_cannot_be_used_is_counted_by_reason(published, tmp_path, capsys):
    assert call(published, tmp_path / "d") == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "d/report.json").read_text())
    fates = {v["source"]: v["reason"] for v in report["videos"]}
    assert fates == {
        "wide_500.gif": None,
        "tall_250.gif": None,
        "cut_400.gif": None,
        "short_1.gif": "too_short",
        "gone_400.gif": "missing",
        "text_400.gif": "not_video",
    }
    assert "rejected       1   missing" in said
    assert "(of 1 videos only a part could be read)" in said
    clip, note = shown(tmp_path / "d")[1]["cut_400.gif"]
    assert max(note["picked"]) < 20
    assert clip[:, 40, 64, 0] == pytest.approx([level(n) for n in note["picked"]], abs=1)


@pytest.mark.parametrize("lost", [1, 40, 900])
def test_half_a_picture_at_the_end_of_a_gif_is_not_used(tmp_path, lost):
    draw = np.random.default_rng(0)
    frames = [Image.fromarray(draw.integers(0, 255, (64, 64), np.uint8)) for _ in range(11)]
    path = tmp_path / "src/noise_1.gif"
    path.parent.mkdir()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    path.write_bytes(path.read_bytes()[:-lost])
    (tmp_path / "src/list.tsv").write_text(f"{HOST}/noise_1.gif\tnoise")
    assert call(tmp_path / "src", tmp_path / "d", "--size", "64") == 0
    clip, note = shown(tmp_path / "d")[1]["noise_1.gif"]
    assert note["picked"] == list(range(10))
    assert np.abs(clip[..., 0].astype(int) - np.stack(frames[:10])).max() <= 2


def test_choice_of_frames_is_a_function_of_the_name_wherever_the_gif_lies(published, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in published.rglob("*_*.gif"):
        (flat / path.name).symlink_to(path)
    (flat / "tgif-v1.0.tsv").symlink_to(published / "data/tgif-v1.0.tsv")
    assert call(published, tmp_path / "a") == 0
    assert call(flat / "tgif-v1.0.tsv", tmp_path / "b") == 0
    made = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.name != "report.json"}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert made[0] == made[1]
    (flat / "wide_500.gif").rename(flat / "tall_250.gif")
    assert call(flat, tmp_path / "c") == 0
    picked = [shown(tmp_path / d)[1] for d in "ac"]
    first, other = picked[0]["wide_500.gif"][1], picked[1]["tall_250.gif"][1]
    assert first["picked"] != other["picked"]


def test_another_sentence_is_another_dataset(published, tmp_path, capsys):
    src = tmp_path / "src"
    src.mkdir()
    for path in (published / "gifs").iterdir():
        (src / path.name).symlink_to(path)
    text = (published / "data/tgif-v1.0.tsv").read_text()
    (src / "tgif-v1.0.tsv").write_text(text)
    assert call(src, tmp_path / "d") == 0
    (src / "tgif-v1.0.tsv").write_text(text.replace("glaring", "smiling"))
    assert call(src, tmp_path / "d") == 2
    assert "holds a dataset of other videos" in capsys.readouterr().err


LISTS = {
    "no tab": (f"{HOST}/a_1.gif a man", "tgif.tsv, line 1: 'https://38.media"),
    "no sentence": (f"{HOST}/a_1.gif\t ", "is not a gif's address, a tab and a sentence"),
    "no gif": (f"{HOST}/a_1.mp4\ta man", "is not a gif's address, a tab and a sentence"),
    "columns changed": (f"a man\t{HOST}/a_1.gif", "is not a gif's address, a tab and a sentence"),
    "nothing": ("\n\n", "no gif is listed in it"),
    "binary": ("\udcff\udcfe", "not a list in UTF-8"),
    "all absent": (f"{HOST}/b_1.gif\ta man", "none of the 1 gifs that"),
}


@pytest.mark.parametrize(("text", "said"), LISTS.values(), ids=LISTS)
def test_list_that_is_wrong_exits_2_and_says_where(tmp_path, capsys, text, said):
    write_gif(tmp_path / "src/a_1.gif", 2, (4, 4))
    (tmp_path / "src/tgif.tsv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert call(tmp_path / "src", tmp_path / "d") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "d").exists()


def test_folder_without_a_list_or_gifs_exits_2(tmp_path, capsys):
    write_gif(tmp_path / "src/a_1.gif", 2, (4, 4))
    assert call(tmp_path / "src", tmp_path / "d") == 2
    assert "no list (*.tsv) below it" in capsys.readouterr().err
    assert call(tmp_path / "src/tgif.tsv", tmp_path / "d") == 2
    assert "tgif.tsv: no such list" in capsys.readouterr().err
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / "src" / name).write_text(f"{HOST}/a_1.gif\ta man")
    assert call(tmp_path / "src", tmp_path / "d") == 2
    assert "2 lists, a.tsv, b.tsv" in capsys.readouterr().err
    write_gif(tmp_path / "src/again/a_1.gif", 2, (4, 4))
    assert call(tmp_path / "src", tmp_path / "d") == 2
    assert "a_1.gif and again/a_1.gif have the same name" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert call(tmp_path / "empty", tmp_path / "d") == 2
    assert "no file below it ends in one of .gif" in capsys.readouterr().err
    assert call(tmp_path / "none", tmp_path / "d") == 2
    assert "no such folder" in capsys.readouterr().err
