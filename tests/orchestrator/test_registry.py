"""Registered models of every kind, loaded by MLflow where the project cannot be imported."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from orchestrator.experiments import EXPERIMENTS
from orchestrator.overrides import override
from orchestrator.registry import save
from orchestrator.site import Site
from orchestrator.trained import find_trained
from shards.still import read_still

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "generator": ("vgan_golf", ["model.width=1", "model.latent=3"]),
    "autoencoder": (
        "vgan_autoencoder_golf",
        ["model.width=1", "model.latent=3", "model.components=2"],
    ),
    "future": ("vgan_future_golf", ["model.width=1"]),
    "classifier": ("ucf101_random", ["model.width=1", "model.classes=3"]),
    "drawing": ("sync_draw_one_digit_captions", ["model.hidden=8", "model.strokes=2"]),
    "reader": ("bouncing_reader_one", ["model.width=1"]),
}
ROTATOR = ["model.width=2", "model.frames=6", "model.rotations=2", "model.units=2"]
NAMES = {"drawing": {"words": ["down", "left", "up"]}}
CAPTIONS = ["up down", "left up"]
ELSEWHERE = """
import importlib.util, sys
sys.path[:] = [p for p in sys.path if not p.startswith(sys.argv[1])  or "site-packages" in p]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
assert not any(map(importlib.util.find_spec, ("orchestrator", "models", "shards")))

import base64, json, mlflow.pyfunc, numpy, pandas
inputs = numpy.load(sys.argv[2])
png = inputs["png"].tobytes()
images = [png, base64.b64encode(png).decode(), inputs["pixels"]]
asked = {
    "generator": pandas.DataFrame({"seed": [3, 4]}),
    "autoencoder": pandas.DataFrame({"seed": [3, 4]}),
    "future": pandas.DataFrame({"image": images}),
    "classifier": inputs["clips"],
    "drawing": pandas.DataFrame({"seed": [3, 4], "caption": ["up down", "left up"]}),
    "reader": inputs["grey"],
}
given, examples = {}, {}
for kind, question in asked.items():
    model = mlflow.pyfunc.load_model(f"{sys.argv[3]}/{kind}")
    given[kind] = model.predict(question)
    example = model.predict(model.input_example)
    examples[kind] = [list(example.shape), str(example.dtype)]
    try:
        model.predict(pandas.DataFrame({"nothing": [1]}))
    except mlflow.exceptions.MlflowException:
        examples[kind].append("refused")
assert "orchestrator" not in sys.modules
numpy.savez(sys.argv[4], **given)
print(json.dumps(examples))
"""


def _experiment(kind):
    name, more = KINDS[kind]
    return override(EXPERIMENTS[name], ["budget.steps=6", *more])


def _inputs():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    clips = rng.integers(0, 256, (2, 32, 64, 64, 3), dtype=np.uint8)
    grey = rng.integers(0, 256, (2, 10, 64, 64, 1), dtype=np.uint8)
    png = np.frombuffer(file.getvalue(), np.uint8)
    return {"pixels": pixels, "png": png, "clips": clips, "grey": grey}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """(the models' folders, what each gave, what its example gave), from one other process."""
    folder = tmp_path_factory.mktemp("registered")
    for kind in KINDS:
        torch.manual_seed(0)
        weights = _experiment(kind).model.build().state_dict()
        loud = {name: 40 * w if w.dim() > 3 else w for name, w in weights.items()}
        names = NAMES.get(kind, {})
        save(folder / kind, _experiment(kind), loud, run=f"{kind}-0a1b2c3d", names=names)
    np.savez(folder / "in.npz", **_inputs())
    command = [sys.executable, "-I", "-W", "ignore", "-c", ELSEWHERE, str(ROOT)]
    command += [str(folder / "in.npz"), str(folder), str(folder / "out.npz")]
    out = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert out.returncode == 0, out.stderr
    given = dict(np.load(folder / "out.npz"))
    return folder, given, json.loads(out.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["generator", "autoencoder"])
def test_registered_generating_model_makes_a_clip_a_seed(elsewhere, site, kind):
    folder, given, examples = elsewhere
    assert examples[kind] == [[2, 32, 64, 64, 3], "uint8", "refused"]
    here = find_trained(str(folder / kind), Site.from_environment())
    assert here.kind == kind
    assert given[kind].std() > 1
    assert np.abs(given[kind].astype(int) - here.sample([3, 4])["sample"]).max() <= 1
    assert not (given[kind][0] == given[kind][1]).all()


def test_registered_drawing_is_of_its_caption_and_seed(elsewhere, site):
    folder, given, examples = elsewhere
    assert examples["drawing"] == [[2, 10, 64, 64, 1], "uint8", "refused"]
    here = find_trained(str(folder / "drawing"), Site.from_environment())
    assert here.words == ["down", "left", "up"]
    expected = here.sample([3, 4], captions=CAPTIONS)["sample"]
    assert expected.std() > 1
    assert np.abs(given["drawing"].astype(int) - expected[..., :1]).max() <= 1
    other = here.sample([3, 4], captions=CAPTIONS[::-1])["sample"]
    assert (other != expected).any()
    with pytest.raises(ValueError, match="give --caption TEXT"):
        here.sample([3])
    with pytest.raises(ValueError, match="no word 'sideways'"):
        here.sample([3], captions=["sideways"])


def test_registered_reader_gives_the_probability_of_all_that_may_be_seen(elsewhere, site):
    folder, given, examples = elsewhere
    assert examples["reader"] == [[1, 20], "float32", "refused"]
    here = find_trained(str(folder / "reader"), Site.from_environment())
    video = torch.from_numpy(_inputs()["grey"]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    np.testing.assert_allclose(given["reader"], here.learner.predict(video), rtol=1e-4, atol=1e-6)


def test_registered_future_model_goes_on_from_bytes_base64_and_pixels(elsewhere, site):
    folder, given, examples = elsewhere
    assert examples["future"] == [[1, 32, 64, 64, 3], "uint8", "refused"]
    here = find_trained(str(folder / "future"), Site.from_environment())
    begun = read_still(_inputs()["png"].tobytes(), 64, where="")[None, None]
    expected = here.sample([0], begun)["sample"][0]
    assert expected.std() > 1
    assert len(given["future"]) == 3
    for clip in given["future"]:
        assert np.abs(clip.astype(int) - expected).max() <= 1


def test_registered_classifier_gives_probabilities_of_clips(elsewhere, site):
    folder, given, examples = elsewhere
    assert examples["classifier"] == [[1, 3], "float32", "refused"]
    here = find_trained(str(folder / "classifier"), Site.from_environment())
    scaled = torch.from_numpy(_inputs()["clips"]).float().permute(0, 4, 1, 2, 3) / 127.5 - 1
    expected = here.learner.predict(scaled).numpy()
    assert np.ptp(expected) > 0.01
    assert given["classifier"] == pytest.approx(expected, abs=1e-5)
    assert given["classifier"].sum(1) == pytest.approx(1)


def test_deep_rotator_is_registered_as_what_goes_on_from_a_picture(tmp_path, site):
    experiment = override(EXPERIMENTS["deep_rotator_chairs"], ROTATOR)
    weights = experiment.model.build().state_dict()
    save(tmp_path / "model", experiment, weights, run="rotator-0a1b2c3d")
    here = find_trained(str(tmp_path / "model"), Site.from_environment())
    assert here.kind == "future"
    picture = np.zeros((1, 1, 64, 64, 3), np.uint8)
    assert here.sample([0], picture)["sample"].shape == (1, 6, 64, 64, 3)


def test_model_of_skip_thoughts_asks_for_a_caption(tmp_path, site):
    more = ["model.hidden=8", "model.strokes=2"]
    experiment = override(EXPERIMENTS["sync_draw_one_digit_skip_thoughts"], more)
    save(tmp_path / "model", experiment, experiment.model.build().state_dict(), run="sd-0a1b2c3d")
    about = yaml.safe_load((tmp_path / "model/MLmodel").read_text())
    columns = json.loads(about["signature"]["inputs"])
    assert [column["name"] for column in columns] == ["seed", "caption"]
    here = find_trained(str(tmp_path / "model"), Site.from_environment())
    with pytest.raises(ValueError, match="SKIP_THOUGHTS: name the folder"):
        here.sample([0], captions=["digit 3"])
