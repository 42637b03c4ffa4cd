"""The sample data: real video files, the same each time, that become a dataset worth looking at."""

import base64
import io
from html.parser import HTMLParser

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from shards import preview
from shards.demo import FPS, HEIGHT, WIDTH, encode, main, scenes
from shards.manifest import load_manifest
from shards.storage import LocalStore


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    assert main([str(root / "d"), "--videos=5", "--seconds=2.6", "--workers=1"]) == 0
    return root / "d"


def test_demo_on_a_cluster_ingests_where_it_has_rendered(tmp_path, monkeypatch):
    """Other nodes would not find the videos; and at this address nobody listens."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main([str(tmp_path / "d"), "--videos=1", "--seconds=2.6"]) == 0
    assert load_manifest(LocalStore(str(tmp_path / "d"))).counts["videos_kept"] == 1


def test_demo_videos_are_h264_of_the_rendered_scenes(tmp_path):
    scene = scenes(1)[0]
    encode(scene, tmp_path / "a.mp4", 20)
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == FPS
    assert len(frames) == 20
    assert frames[0].shape == (HEIGHT, WIDTH, 3)
    for t, frame in enumerate(frames):
        error = np.square(frame.astype(float) - scene.frame(t)).mean()
        assert 10 * np.log10(255**2 / error) > 28  # dB; chroma is stored at half size
    encode(scene, tmp_path / "b.mp4", 20)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_demo_scenes_differ_and_their_balls_move_within_the_view():
    made = scenes(40)
    assert len(set(made)) == 40
    assert {scene.motion for scene in made} == {"bounce", "roll", "float"}
    assert len({(scene.place, scene.color) for scene in made}) == 16
    for scene in made:
        path = np.array([scene.position(t) for t in range(200)])
        steps = np.hypot(*np.diff(path[:, :2], axis=0).T)
        assert 0.5 < steps.mean() < 8
        assert (path[:, :2] - path[:, 2:] > 0).all()


def test_demo_keeps_every_clip(dataset):
    counts = load_manifest(LocalStore(str(dataset))).counts
    assert counts["videos"] == counts["videos_kept"] == 5
    assert counts["clips"] == counts["clips_kept"] == 10


def test_preview_shows_each_clip_in_a_row_and_as_a_moving_picture(dataset, tmp_path, capsys):
    assert preview.main([str(dataset), "--out", str(tmp_path), "--clips", "4"]) == 0
    with Image.open(tmp_path / "clips.png") as sheet:
        assert sheet.size == (10 * 64, 4 * 64)
        rows = np.asarray(sheet).reshape(4, 64, 10, 64, 3)
    store = LocalStore(str(dataset))
    shown = list(preview.some_clips(store, load_manifest(store), 4))
    for row, (clip, _) in zip(rows, shown, strict=True):
        assert (row[:, 3] == clip[3 * preview.EVERY]).all()
    with Image.open(tmp_path / "clips.gif") as gif:
        assert (gif.n_frames, gif.size) == (32, (256, 256))
        assert gif.info["duration"] == 40
    assert "demo_00" in capsys.readouterr().out


class Page(HTMLParser):
    """What a browser would find: animations, and the name and value of every field."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.names, self.values, self._into = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.pictures.append(dict(attributes)["src"])
        self._into = {"dt": self.names, "dd": self.values}.get(tag)
        if self._into is not None:
            self._into.append("")

    def handle_endtag(self, _):
        self._into = None

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data


def test_preview_page_plays_every_clip_beside_its_provenance(dataset, tmp_path):
    assert preview.main([str(dataset), "--out", str(tmp_path), "--clips", "3"]) == 0
    text = (tmp_path / "clips.html").read_text()
    found = Page(text)
    store = LocalStore(str(dataset))
    shown = list(preview.some_clips(store, load_manifest(store), 3))
    for (clip, note), picture in zip(shown, found.pictures, strict=True):
        data = base64.b64decode(picture.removeprefix("data:image/gif;base64,"))
        with Image.open(io.BytesIO(data)) as gif:
            assert (gif.n_frames, gif.size) == (32, (128, 128))
            small = gif.convert("RGB").resize((64, 64), Image.Resampling.BOX)
        assert np.abs(np.asarray(small).astype(int) - clip[0]).mean() < 12  # 256 colours
        assert note["etag"] in found.values
    fields = dict(zip(found.names, found.values, strict=False))
    assert {"source", "start_frame", "stabilizer.backend", "stabilizer.max_shift_px"} <= set(fields)
    assert "http" not in text  # it stands alone


def test_preview_page_escapes_what_a_source_is_called(dataset):
    store = LocalStore(str(dataset))
    manifest = load_manifest(store)
    [(clip, note)] = preview.some_clips(store, manifest, 1)
    text = preview.page([(clip, {**note, "source": '"><script>x</script>'})], manifest, "<b>")
    assert "<script>" not in text
    assert "<b>" not in text


def test_preview_of_samples_without_provenance_shows_them_all_the_same(make_dataset, tmp_path):
    made = make_dataset([3], shape=(8, 16, 16, 3))  # not by our ingest: no source, no stabilizer
    assert preview.main([made.location, "--out", str(tmp_path / "out"), "--clips", "2"]) == 0
    assert len(Page((tmp_path / "out/clips.html").read_text()).pictures) == 2


def test_preview_of_nothing_says_that_there_is_no_dataset(tmp_path, capsys):
    assert preview.main([str(tmp_path)]) == 2
    assert "no dataset at" in capsys.readouterr().err


def movement(clip):
    """Grey levels that the median pixel is away from what it was in the first frame."""
    return np.median(np.abs(clip.astype(float) - clip[0]).mean((0, 3)))


def test_demo_balls_are_the_only_thing_that_moves(dataset):
    store = LocalStore(str(dataset))
    still, shaken = [], []
    for clip, note in preview.some_clips(store, load_manifest(store), 10):
        scene = scenes(5)[int(note["source"][5:8])]
        seen = [scene.frame(note["start_frame"] + t) for t in range(32)]
        small = [cv2.resize(frame, (85, 64), interpolation=cv2.INTER_AREA) for frame in seen]
        still.append(movement(clip))
        shaken.append(movement(np.array(small)[:, :, 10:74]))
    assert np.mean(still) < np.mean(shaken) / 4
