"""Keeping one kind of scene, with a small classifier trained here; and leaving out copies."""

import json
import sys

import av
import cv2
import numpy as np
import pytest
import torch

from shards.demo import Scene, encode
from shards.duplicates import find_duplicates, perceptual_hash
from shards.ingest import ingest, main
from shards.manifest import load_manifest
from shards.preview import some_clips
from shards.recipe import Recipe
from shards.scene import DECODED_PX, Classifier, parse_labels, scene_filter
from shards.storage import LocalStore
from shards.video import Video

LABELS = b"/a/airfield 0\n/g/golf_course 1\n/t/train_station/platform 2\n/t/train_station/hall 3\n"


def scene(place, seed=0):
    return Scene(place=place, color=seed % 4, motion="roll", seed=seed)


class Small(torch.nn.Module):
    """Mean colours of a 4x4 grid, then a linear layer."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(48, 4)

    def forward(self, x):
        return self.linear(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


def inputs(pictures):
    """What the model is fed, written out anew: centre 224 of short side 256, normalised."""
    rows = []
    for picture in pictures:
        height, width = picture.shape[:2]
        top, left = (height - 224) // 2, (width - 224) // 2
        x = torch.tensor(picture[top : top + 224, left : left + 224]).permute(2, 0, 1) / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        rows.append((x - mean[:, None, None]) / std[:, None, None])
    return torch.stack(rows)


def shown(place, seed):
    """Every tenth picture of a scene at the size it is judged at."""
    return [
        cv2.resize(scene(place, seed).frame(t), (341, DECODED_PX), interpolation=cv2.INTER_CUBIC)
        for t in range(0, 80, 10)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """TorchScript that tells the photograph of the palace (golf) from the flower (platform)."""
    torch.manual_seed(0)
    net = Small()
    pictures = [shown(place, seed) for place, seed in ((0, 1), (2, 2))]
    x = inputs([p for group in pictures for p in group])
    y = torch.tensor([1] * 8 + [2] * 8)
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("model")
    torch.jit.script(net.eval()).save(str(folder / "places.pt"))
    (folder / "labels.txt").write_bytes(LABELS)
    return folder, net


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for name, place, seed in (("golf", 0, 11), ("station", 2, 12)):
        encode(scene(place, seed), root / f"{name}.mp4", 64)
    return root


def filtered(src, dst, folder, *more):
    named = ["--scene-model", f"{folder}/places.pt", "--scene-labels", f"{folder}/labels.txt"]
    call = [str(src), str(dst), "--recipe", "flickr_filtered", "--workers", "1", *named]
    return main([*call, "--stabilizer", "lk", *more])


def test_only_clips_of_the_scene_are_kept_with_their_scores(videos, tmp_path, model):
    folder, net = model
    assert filtered(videos, tmp_path / "d", folder, "--scene", "golf_course") == 0
    report = json.loads((tmp_path / "d/report.json").read_text())
    fates = {video["source"]: video for video in report["videos"]}
    assert fates["golf.mp4"]["clips"] == 2
    assert {reason for _, reason, _ in fates["station.mp4"]["rejected"]} == {"other_scene"}
    assert "train_station/platform" in fates["station.mp4"]["rejected"][0][2]
    store = LocalStore(str(tmp_path / "d"))
    for _, note in some_clips(store, load_manifest(store), 2):
        path = str(videos / note["source"])
        with Video(path, fps=25, canvas_px=128, gray_px=320, scene_px=256, scene_every=1) as video:
            seen = [frame.picture.scene for frame in video.frames()][note["start_frame"]]
        with torch.no_grad():
            wanted = torch.softmax(net(inputs([seen])), 1)[0, 1].item()
        assert note["scene"]["score"] == pytest.approx(wanted, abs=1e-3)
        assert note["scene"]["top"][0][0] == "golf_course"
    recipe = load_manifest(store).recipe
    assert set(recipe["scene"]) == {"scene", "least", "digest"}


def test_scene_takes_everything_below_its_name(videos, tmp_path, model):
    assert filtered(videos, tmp_path / "d", model[0], "--scene", "train_station") == 0
    counts = load_manifest(LocalStore(str(tmp_path / "d"))).counts
    assert (counts["clips_kept"], counts["clips_rejected_other_scene"]) == (2, 2)


def test_every_clip_is_judged_by_one_picture_of_its_own(tmp_path):
    encode(scene(0), tmp_path / "a.mp4", 70)
    path = str(tmp_path / "a.mp4")
    with Video(path, fps=25, canvas_px=128, gray_px=320, scene_px=256, scene_every=32) as video:
        made = [frame.picture.scene is not None for frame in video.frames()]
    assert [n for n, here in enumerate(made) if here] == [0, 32, 64]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs --scene, --scene-model and --scene-labels"),
        (["--scene", "golf", "{m}", "{l}"], "did you mean golf_course"),
        (["--scene", "golf_course", "{m}", "{l}", "--scene-score", "2"], "scene_score=2.0"),
        (["--scene", "golf_course", "{m}", "--scene-labels={f}/none.txt"], "none.txt"),
        (["--scene", "golf_course", "--scene-model={f}/labels.txt", "{l}"], "not a TorchScript"),
        (["--scene", "golf_course", "{m}", "--scene-labels={f}/two.txt"], "there are 2 labels"),
    ],
)
def test_wrong_filter_exits_2_and_says_what_is_needed(
    videos, tmp_path, model, capsys, arguments, said
):
    folder, _ = model
    (folder / "two.txt").write_text("golf_course\nbeach\n")
    short = {"m": f"--scene-model={folder}/places.pt", "l": f"--scene-labels={folder}/labels.txt"}
    call = [str(videos), str(tmp_path / "d"), "--recipe", "flickr_filtered", "--workers", "1"]
    assert main([*call, *(argument.format(f=folder, **short) for argument in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_scene_of_an_unfiltered_recipe_is_refused(videos, tmp_path, capsys):
    assert main([str(videos), str(tmp_path / "d"), "--scene", "beach"]) == 2
    assert "flickr_filtered" in capsys.readouterr().err


def test_model_that_changed_since_the_ingest_began_is_refused(model, tmp_path):
    for name in ("places.pt", "labels.txt"):
        (tmp_path / name).write_bytes((model[0] / name).read_bytes())
    made = scene_filter("golf_course", 0.2, f"{tmp_path}/places.pt", f"{tmp_path}/labels.txt")
    (tmp_path / "labels.txt").write_bytes(LABELS + b"beach 4\n")
    with pytest.raises(ValueError, match="changed since"):
        Classifier(made)


def test_onnx_without_its_runtime_names_the_extra(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"video-orchestrator\[onnx\]"):
        scene_filter("golf_course", 0.2, f"{tmp_path}/m.onnx", f"{model[0]}/labels.txt")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (b"/g/golf_course 1\n/a/airfield 0\n", ["airfield", "golf_course"]),
        (b"beach\nhospital room\n\n", ["beach", "hospital_room"]),
    ],
)
def test_labels_are_read_in_the_order_of_the_outputs(text, labels):
    assert parse_labels(text, where="") == labels


def brute(hashes, most):
    """Every pair, one after the other."""
    found = {}
    for b in sorted(hashes):
        for a in sorted(hashes):
            bits = (int(hashes[a], 16) ^ int(hashes[b], 16)).bit_count()
            if a < b and a.split("_")[0] != b.split("_")[0] and bits <= most and b not in found:
                found[b] = a
    return found


@pytest.mark.parametrize("most", [0, 3, 7])
def test_duplicates_are_those_that_comparing_every_pair_finds(most):
    draw = np.random.default_rng(most)
    hashes = {}
    for n in range(300):
        value = int.from_bytes(draw.bytes(16), "big")
        if n % 3 and hashes:
            value = int(list(hashes.values())[int(draw.integers(len(hashes)))], 16)
            for bit in draw.choice(128, int(draw.integers(9)), replace=False):
                value ^= 1 << int(bit)
        hashes[f"{draw.bytes(8).hex()}_{n:08d}" if n % 5 else f"{'0' * 16}_{n:08d}"] = (
            f"{value:032x}"
        )
    found = find_duplicates(hashes, most)
    assert found == brute(hashes, most)
    assert (len(found) > 20) == (most > 0)


def test_hash_survives_scaling_and_noise_but_not_another_scene():
    clips = [np.stack([scene(p).frame(t) for t in range(4)]) for p in range(4)]
    draw = np.random.default_rng(0)

    def bits(a, b):
        return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()

    for n, clip in enumerate(clips):
        small = np.stack([cv2.resize(f, (64, 64), interpolation=cv2.INTER_AREA) for f in clip])
        noisy = np.clip(clip + draw.normal(0, 4, clip.shape), 0, 255).astype(np.uint8)
        assert bits(clip, small) <= 4
        assert bits(clip, noisy) <= 4
        assert all(bits(clip, other) > 20 for m, other in enumerate(clips) if m != n)


def copy(path, to):
    """The same film, smaller, from another encoder at a lower quality."""
    with av.open(str(path)) as given, av.open(str(to), "w") as made:
        stream = made.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 120, 90, "yuv420p"
        stream.bit_rate = 400_000
        for frame in given.decode(video=0):
            made.mux(stream.encode(frame.reformat(120, 90, "yuv420p")))
        made.mux(stream.encode(None))


def test_copy_in_another_file_is_dropped_and_the_first_by_key_kept(videos, tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    for name in ("golf.mp4", "station.mp4"):
        (src / name).symlink_to(videos / name)
    copy(videos / "golf.mp4", src / "copy.avi")
    recipe = Recipe(name="x", stabilizer="lk", duplicate_bits=7)
    manifest = ingest(str(src), str(tmp_path / "d"), recipe, workers=1).manifest
    assert manifest.counts["clips_rejected_duplicate"] == 2
    assert manifest.samples == manifest.counts["clips_kept"] == 4
    report = json.loads((tmp_path / "d/report.json").read_text())
    fates = {video["source"]: video for video in report["videos"]}
    assert fates["station.mp4"]["clips"] == 2
    first, second = sorted(("golf.mp4", "copy.avi"), key=lambda name: fates[name]["id"])
    assert (fates[first]["clips"], fates[second]["clips"]) == (2, 0)
    assert fates[second]["reason"] == "no_clip_kept"
    assert {why for _, why, _ in fates[second]["rejected"]} == {"duplicate"}
    assert all(of.startswith(f"of {fates[first]['id']}_") for _, _, of in fates[second]["rejected"])


def test_onnx_model_scores_like_the_same_torchscript(model, tmp_path):
    onnx = pytest.importorskip("onnx", reason="pip install onnx and the extra 'onnx'")
    pytest.importorskip("onnxruntime", reason="pip install 'video-orchestrator[onnx]'")
    folder, net = model
    weight, bias = (p.detach().numpy() for p in (net.linear.weight, net.linear.bias))
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[56, 56], strides=[56, 56]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, 224, 224]), ("y", ["n", 4]))
    ]
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "places", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    labels = f"{folder}/labels.txt"
    theirs = Classifier(scene_filter("golf_course", 0.2, f"{tmp_path}/m.onnx", labels))
    ours = Classifier(scene_filter("golf_course", 0.2, f"{folder}/places.pt", labels))
    pictures = shown(0, 5)
    assert theirs.scores(pictures) == pytest.approx(ours.scores(pictures), abs=1e-5)
