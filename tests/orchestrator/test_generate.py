"""`python -m orchestrator.generate` on checkpoints of every kind: files decoded, calls refused."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from orchestrator.experiments import EXPERIMENTS
from orchestrator.generate import main
from orchestrator.mlflow_runs import create_run
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.trained import find_trained

SMALL = ["model.width=1", "budget.steps=6"]


def _experiment(name, *more):
    return override(EXPERIMENTS[name], [*SMALL, *more])


GOLF = _experiment("vgan_golf", "model.latent=3")


def _call(capsys, *argv):
    """The command's JSON, once it has exited 0."""
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def _refused(capsys, *argv):
    """What a call that was wrong is told."""
    assert main([str(each) for each in argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


def _strip(path, frames=32):
    """uint8 (T, 64, 64, 3) of a clip's PNG."""
    pixels = np.asarray(Image.open(path))
    return pixels.reshape(64, frames, 64, 3).swapaxes(0, 1)


def test_generate_of_two_streams_writes_every_picture_and_the_same_again(finish, capsys, tmp_path):
    name = finish(GOLF)
    told = _call(capsys, name, "--count", "3", "--seed", "5", "--out", str(tmp_path / "a"))
    assert (told["run"], told["step"], told["kind"], told["clips"]) == (name, 6, "generator", 3)
    _call(capsys, name, "--count", "3", "--seed", "5", "--out", str(tmp_path / "b"))
    streams = ["background.png", "foreground.gif", "mask.gif", "streams.gif", "streams.png"]
    samples = ["samples.gif", "samples.mp4", "samples.png"]
    assert told["files"] == sorted([*(f"clips/{n:04d}.png" for n in range(3)), *streams, *samples])
    for file in told["files"]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_generate_shows_the_models_own_clips_by_seed(finish, site, capsys, tmp_path):
    name = finish(GOLF)
    _call(capsys, name, "--count", "2", "--seed", "41", "--out", str(tmp_path / "out"))
    parts = find_trained(name, Site.from_environment()).sample([41, 42])
    for n in range(2):
        assert (_strip(tmp_path / f"out/clips/{n:04d}.png") == parts["sample"][n]).all()
    with av.open(str(tmp_path / "out/samples.mp4")) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(shown) == 32
    middle = shown[16][4 : 4 + 128 : 2, 4 : 4 + 128 : 2].astype(int)
    assert np.abs(middle - parts["sample"][0, 16]).mean() < 3
    still = np.asarray(Image.open(tmp_path / "out/background.png"))
    assert (still[4 : 4 + 128 : 2, 4 : 4 + 128 : 2] == parts["background"][0, 0]).all()


def test_generate_of_more_clips_than_a_picture_shows_writes_all(
    finish, site, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr("orchestrator.generate._SHOWN", 4)
    name = finish(_experiment("vgan_golf_one_stream", "model.latent=3"), scale=40)
    _call(capsys, name, "--count", "10", "--seed", "2", "--out", str(tmp_path))
    assert len(list((tmp_path / "clips").iterdir())) == 10
    last = find_trained(name, Site.from_environment()).sample([11])["sample"][0]
    assert np.abs(_strip(tmp_path / "clips/0009.png").astype(int) - last).max() <= 1
    assert last.std() > 1
    assert Image.open(tmp_path / "samples.gif").size == (4 + 4 * 132, 4 + 132)


@pytest.mark.parametrize("name", ["vgan_golf_one_stream", "vgan_autoencoder_golf"])
def test_generate_of_other_generating_models_needs_nothing_else(finish, capsys, tmp_path, name):
    more = [] if "one_stream" in name else ["model.components=2"]
    run = finish(_experiment(name, "model.latent=3", *more))
    told = _call(capsys, run, "--count", "2", "--out", str(tmp_path))
    assert ("streams.png" in told["files"]) == ("autoencoder" in name)
    assert _strip(tmp_path / "clips/0001.png").std() > 0


def test_generate_adds_its_pictures_to_the_run_in_mlflow(finish, site, capsys, tmp_path):
    name, here = finish(GOLF), Site.from_environment()
    client = MlflowClient(here.mlflow_uri)
    run_id = create_run(client, here.mlflow_uri, name=name, experiment="vgan").info.run_id
    client.set_terminated(run_id, "FINISHED")
    told = _call(capsys, name, "--count", "1", "--out", str(tmp_path / "out"))
    assert told["mlflow_run"] == run_id
    folder = Path(client.download_artifacts(run_id, "generated/step-00000006", str(tmp_path)))
    assert {p.name for p in folder.iterdir()} == {f for f in told["files"] if "/" not in f}
    assert (folder / "samples.gif").read_bytes() == (tmp_path / "out/samples.gif").read_bytes()
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.fixture
def future(finish):
    return finish(_experiment("vgan_future_golf"), scale=40)


def _picture(path, width=80, height=120, **options):
    y, x = np.mgrid[:height, :width]
    Image.fromarray(np.stack([x * 3, y * 2, x + y], -1).astype(np.uint8)).save(path, **options)
    return path


def test_generate_futures_of_pictures_begin_from_each(future, capsys, tmp_path):
    tall = _picture(tmp_path / "tall.png")
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((9, 9), 60_000, np.uint16)).save(grey)
    out = tmp_path / "out"
    told = _call(capsys, future, "--image", str(tall), "--image", str(grey), "--out", str(out))
    assert (told["clips"], told["kind"]) == (2, "future")
    assert {"futures.gif", "futures.mp4", "futures.png"} < set(told["files"])
    assert not (_strip(out / "clips/0000.png") == _strip(out / "clips/0001.png")).all()
    sheet = np.asarray(Image.open(out / "futures.png"))
    block = 4 + 2 * 132  # each picture has two rows: itself, and its future
    assert sheet.shape[0] == 2 * block
    left = sheet.shape[1] - (4 + 8 * 132)
    second = sheet[block + 4 : block + 132, left + 4 : left + 132]
    assert (second == 233).all()  # 60,000 / 257


def test_generate_futures_of_a_dataset_stand_beside_what_came(future, site, capsys, tmp_path):
    out = tmp_path / "out"
    told = _call(capsys, future, "--data", "squares", "--count", "2", "--out", str(out))
    assert told["clips"] == 2
    sheet = np.asarray(Image.open(out / "futures.png"))
    left = sheet.shape[1] - (4 + 8 * 132)
    begun, real = sheet[4:132, left:], sheet[4 + 2 * 132 : 4 + 2 * 132 + 128, left:]
    assert sheet.shape[0] == 2 * (4 + 3 * 132)
    assert (begun[:, 4:132] == real[:, 4:132]).all()  # both the clip's first frame
    assert (begun[:, -132:-4] == begun[:, 4:132]).all()  # which stays
    assert not (real[:, -132:-4] == real[:, 4:132]).all()  # while the clip goes on


def test_generate_wrong_calls_say_what_is_right(finish, future, site, capsys, tmp_path):
    golf = finish(GOLF)
    classifier = finish(_experiment("ucf101_random", "model.classes=2"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(_picture(tmp_path / "whole.png").read_bytes()[:99])
    assert "did you mean 'vgan_golf-0a1b2c3d'" in _refused(capsys, "vgan_golf-0a1b2c")
    assert "--count=0: must be from 1" in _refused(capsys, golf, "--count", 0)
    assert "--seed=-1: must be" in _refused(capsys, golf, "--seed", -1)
    assert "is a classifier and makes no video" in _refused(capsys, classifier)
    assert "goes on from nothing" in _refused(capsys, golf, "--image", broken)
    assert "give --image FILE" in _refused(capsys, future)
    assert "not both" in _refused(capsys, future, "--image", broken, "--data", "squares")
    absent = _refused(capsys, future, "--image", tmp_path / "no.png")
    assert "no.png: cannot be read: No such file" in absent
    damaged = _refused(capsys, future, "--image", broken)
    assert f"--image {broken}: a damaged picture" in damaged
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    assert "not a picture" in _refused(capsys, future, "--image", text)
    assert "did you mean 'squares'" in _refused(capsys, future, "--data", "square")
    (tmp_path / "file").touch()
    assert "Not a directory" in _refused(capsys, golf, "--count", 1, "--out", tmp_path / "file/x")


def test_generate_of_a_dataset_of_other_clips_is_refused(future, site, capsys):
    manifest = site / "shards/squares/manifest.json"
    value = json.loads(manifest.read_text())
    value["clip"]["frames"] = 16
    manifest.write_text(json.dumps(value))
    told = _refused(capsys, future, "--data", "squares")
    assert "its clips are (16, 64, 64, 3) (T, H, W, C), the model's (32, 64, 64, 3)" in told
