"""`python -m orchestrator.generate` told attributes and first frames: VideoVAE, the rotator."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.conditions import frame_values, value_names
from orchestrator.evaluate import main as evaluate_main
from orchestrator.experiments import EXPERIMENTS
from orchestrator.generate import main
from orchestrator.overrides import override
from orchestrator.registry import save
from orchestrator.site import Site
from orchestrator.trained import find_trained
from shards.dataset import open_dataset

FRAMES = 7
SMALL = ["model.width=2", "model.latent=4", "model.hidden=6", f"model.frames={FRAMES}"]
NAMES = ["action=run", "action=walk", "person=daria", "person=eli", "person=ido"]


@pytest.fixture
def vae(finish):
    """A VideoVAE's run, of two actions and three people."""
    experiment = override(EXPERIMENTS["video_vae_weizmann"], [*SMALL, "model.attributes=2,3"])
    return finish(experiment, scale=3, attributes=NAMES)


def _call(capsys, out, *argv):
    """(the command's JSON, its clips (N, T, 64, 64, 3) uint8), once it has exited 0."""
    assert main([*map(str, argv), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    files = sorted((out / "clips").iterdir())
    assert len(files) == told["clips"]
    strips = [np.asarray(Image.open(file)) for file in files]
    return told, np.stack([s.reshape(64, -1, 64, 3).swapaxes(0, 1) for s in strips])


def _refused(capsys, *argv):
    assert main([str(each) for each in argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


def _made(run, seed, attributes_ta, frame=None):
    """The clip (T, 64, 64, 3) that the learner itself makes of attributes by frame."""
    learner = find_trained(run, Site.from_environment()).learner
    noise = learner.noise(1, torch.Generator().manual_seed(seed))
    video = None
    if frame is not None:
        video = torch.from_numpy(frame / 127.5 - 1).float().permute(2, 0, 1)[None, :, None]
    attributes_bta = torch.tensor(attributes_ta)[None]
    made = learner.sample(noise, video, attributes_ba=attributes_bta)["sample"][0]
    return ((made.permute(1, 2, 3, 0) + 1) * 127.5).round().numpy().astype(int)


def test_frame_values_spread_a_sequence_over_the_frames():
    found = frame_values(["person=ido", "action=walk,run,walk"], NAMES, 7)
    assert found.dtype == np.int64
    assert found.tolist() == [[1, 2], [1, 2], [1, 2], [0, 2], [0, 2], [1, 2], [1, 2]]
    assert frame_values(["action=run,walk"], NAMES, 4).tolist() == [[0, -1]] * 2 + [[1, -1]] * 2
    each = frame_values(["person=ido,daria,eli"], NAMES, 3)
    assert each.tolist() == [[-1, 2], [-1, 0], [-1, 1]]


def test_value_names_are_what_the_learner_counts_and_none_where_it_is_told_nothing(
    tmp_path, make_dataset
):
    make_dataset(tmp_path / "d", labels=("walk", "jump"))
    dataset = open_dataset(str(tmp_path / "d"))
    model = override(EXPERIMENTS["video_vae_weizmann"], [*SMALL, "model.attributes=2"]).model
    assert value_names(model.build(), dataset) == ["label=jump", "label=walk"]
    plain = override(EXPERIMENTS["video_vae_chairs_plain"], SMALL).model
    assert value_names(plain.build(), dataset) == []


def test_generate_shows_the_attributes_that_are_asked_for_in_turn(vae, capsys, tmp_path):
    asked = ["--attributes", "action=walk", "person=eli", "--attributes", "person=daria,ido"]
    asked += ["action=run"]
    _, clips = _call(capsys, tmp_path, vae, *asked, "--count", 3, "--seed", 5)
    first = [[1, 1]] * FRAMES
    second = [[0, 0]] * 4 + [[0, 2]] * 3
    for n, attributes in enumerate((first, second, first)):
        assert np.abs(clips[n] - _made(vae, 5 + n, attributes)).max() <= 1
    assert np.abs(clips[0] - _made(vae, 5, second)).max() > 1
    _, again = _call(capsys, tmp_path / "again", vae, *asked, "--count", 1, "--seed", 6)
    assert np.abs(again[0] - _made(vae, 6, first)).max() <= 1


def test_generate_of_a_constant_sequence_is_that_of_its_value_bit_for_bit(vae, capsys, tmp_path):
    one = ["--attributes", "action=walk", "person=eli", "--count", 2]
    same = ["--attributes", "person=eli,eli,eli", "action=walk,walk", "--count", 2]
    told, _ = _call(capsys, tmp_path / "one", vae, *one)
    _call(capsys, tmp_path / "same", vae, *same)
    for file in told["files"]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "same" / file).read_bytes()


def test_generate_of_an_attribute_that_changes_leaves_the_frames_before_alone(
    vae, capsys, tmp_path
):
    _, steady = _call(capsys, tmp_path / "a", vae, "--attributes", "action=walk", "--count", 4)
    _, changes = _call(capsys, tmp_path / "b", vae, "--attributes", "action=walk,run", "--count", 4)
    apart = np.abs(steady.astype(int) - changes).max((0, 2, 3, 4))
    assert (apart[:4] == 0).all()  # of seven frames the first four are the first value's
    assert (apart[4:] > 0).all()


def test_generate_of_a_registered_model_knows_its_attributes_too(vae, capsys, tmp_path):
    experiment = override(EXPERIMENTS["video_vae_weizmann"], [*SMALL, "model.attributes=2,3"])
    weights = find_trained(vae, Site.from_environment()).learner.state_dict()
    save(tmp_path / "model", experiment, weights, run=vae, names={"attributes": NAMES})
    asked = ["--attributes", "action=walk,run", "--count", 1]
    _, registered = _call(capsys, tmp_path / "a", tmp_path / "model", *asked)
    _, run = _call(capsys, tmp_path / "b", vae, *asked)
    assert (registered == run).all()


def _picture(path, size=64):
    y, x = np.mgrid[:size, :size]
    pixels = np.stack([x * 3 % 256, y * 2, x + y], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_generate_goes_on_from_first_frames_with_attributes(vae, capsys, tmp_path):
    one = _picture(tmp_path / "one.png")
    Image.fromarray(one[::-1].copy()).save(tmp_path / "two.png")
    begun = ["--image", tmp_path / "one.png", "--image", tmp_path / "two.png"]
    asked = ["--attributes", "action=run", "person=ido,eli", "--count", 3, "--seed", 2]
    told, clips = _call(capsys, tmp_path / "out", vae, *begun, *asked)
    assert {"futures.gif", "futures.png", "samples.gif"} < set(told["files"])
    attributes = [[0, 2]] * 4 + [[0, 1]] * 3
    for n, frame in enumerate((one, one[::-1], one)):
        assert np.abs(clips[n] - _made(vae, 2 + n, attributes, frame.astype(float))).max() <= 1
    assert np.abs(clips[0].astype(int) - clips[2]).max() > 1  # other seeds, other futures
    sheet = np.asarray(Image.open(tmp_path / "out/futures.png"))
    assert sheet.shape[0] == 3 * (4 + 2 * 132)
    left = sheet.shape[1] - (4 + FRAMES * 132)
    for n, frame in enumerate((one, one[::-1], one)):
        top = n * (4 + 2 * 132) + 4
        assert (sheet[top : top + 128 : 2, left + 4 : left + 132 : 2] == frame).all()


def test_generate_tells_attributes_left_free_from_the_first_frame(vae, capsys, tmp_path):
    _picture(tmp_path / "one.png")
    frame = np.asarray(Image.open(tmp_path / "one.png"))
    learner = find_trained(vae, Site.from_environment()).learner
    video = torch.from_numpy(frame / 127.5 - 1).float().permute(2, 0, 1)[None, :, None]
    action, person = learner.infer(video)[0].tolist()
    begun = ["--image", tmp_path / "one.png", "--count", 1]
    _, free = _call(capsys, tmp_path / "free", vae, *begun)
    assert np.abs(free[0] - _made(vae, 0, [[action, person]] * FRAMES, frame)).max() <= 1
    other = ("daria", "eli", "ido")[(person + 1) % 3]
    _, told = _call(capsys, tmp_path / "told", vae, *begun, "--attributes", f"person={other}")
    expected = _made(vae, 0, [[action, (person + 1) % 3]] * FRAMES, frame)
    assert np.abs(told[0] - expected).max() <= 1


def test_generate_of_models_without_attributes_goes_on_from_first_frames(finish, capsys, tmp_path):
    _picture(tmp_path / "one.png")
    plain = finish(override(EXPERIMENTS["video_vae_chairs_plain"], SMALL), scale=3)
    begun = ["--image", tmp_path / "one.png"]
    _, clips = _call(capsys, tmp_path / "a", plain, *begun, "--count", 2)
    _, alone = _call(capsys, tmp_path / "b", plain, "--count", 2)
    assert np.abs(clips.astype(int) - alone).max((0, 2, 3, 4)).min() > 0
    told = _refused(capsys, plain, "--attributes", "action=walk")
    assert f"--attributes: {plain} is told no attributes" in told


def test_generate_turns_a_chair_as_its_attribute_says(finish, capsys, tmp_path):
    small = ["model.width=2", f"model.frames={FRAMES}", "model.rotations=2", "model.units=16"]
    experiment = override(EXPERIMENTS["deep_rotator_chairs"], small)
    names = ["chair=a", "rotation=backward", "rotation=forward", "tilt=20"]
    rotator = finish(experiment, scale=3, attributes=names)
    _picture(tmp_path / "one.png")
    begun = ["--image", tmp_path / "one.png", "--attributes"]
    _, one = _call(capsys, tmp_path / "a", rotator, *begun, "rotation=forward")
    _, two = _call(capsys, tmp_path / "b", rotator, *begun, "rotation=forward,backward")
    apart = np.abs(one.astype(int) - two).max((0, 2, 3, 4))
    assert (apart[:4] == 0).all()
    assert (apart[4:] > 0).all()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["acton=walk"], "no attribute 'acton'; did you mean 'action'? Valid: action, person"),
        (["action=wlak"], "no value of action is 'wlak'; did you mean 'walk'? Valid: run, walk"),
        (["action=walk,"], "no value of action is ''"),
        (["walk"], "--attributes walk: there is no attribute 'walk'"),
        (["action=walk", "action=run"], "action is given twice; NAME=VALUE,VALUE changes it"),
        (["action=" + ",".join(["walk"] * 8)], "8 values, and a clip has 7 frames"),
    ],
)
def test_generate_attributes_that_are_wrong_say_what_is_right(vae, capsys, asked, message):
    assert message in _refused(capsys, vae, "--attributes", *asked)


def test_generate_lists_a_few_of_many_values(finish, capsys):
    experiment = override(EXPERIMENTS["video_vae_weizmann"], [*SMALL, "model.attributes=809"])
    names = [f"chair={n:04d}" for n in range(809)]
    run = finish(experiment, attributes=names)
    told = _refused(capsys, run, "--attributes", "chair=O777")
    assert "did you mean '0777'" in told
    assert "0018, 0019 and 789 more" in told
    assert "0020" not in told


def test_generate_attributes_of_a_run_that_does_not_name_them_are_refused(finish, capsys, tmp_path):
    experiment = override(EXPERIMENTS["video_vae_weizmann"], [*SMALL, "model.attributes=2"])
    old = finish(experiment)
    assert "does not say what its attributes are" in _refused(capsys, old, "--attributes", "a=b")
    _call(capsys, tmp_path, old, "--count", 1)


def test_generate_and_evaluate_say_who_goes_on_from_nothing(finish, site, capsys, tmp_path):
    _picture(tmp_path / "one.png")
    mocogan = finish(override(EXPERIMENTS["mocogan_weizmann"], ["model.width=1"]))
    assert "goes on from nothing" in _refused(capsys, mocogan, "--image", tmp_path / "one.png")
    golf = finish(override(EXPERIMENTS["vgan_golf"], ["model.width=1"]))
    assert evaluate_main([golf, "--data", "squares", "--begun", "--out", str(tmp_path / "e")]) == 2
    assert f"--begun: {golf} goes on from nothing" in capsys.readouterr().err
