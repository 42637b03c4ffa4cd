"""`python -m orchestrator.evaluate` on checkpoints of every kind, against NumPy on their clips."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from models.metrics import frechet_distance, stillness
from orchestrator import pictures
from orchestrator.evaluate import main
from orchestrator.experiments import EXPERIMENTS
from orchestrator.mlflow_runs import create_run
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.trained import find_trained
from shards.manifest import load_manifest
from shards.preview import some_clips
from shards.storage import LocalStore


def _experiment(name, *more):
    return override(
        EXPERIMENTS[name], ["model.width=1", "budget.steps=6", "data.name=squares", *more]
    )


LATENT = "model.latent=3"


@pytest.fixture
def call(site, capsys):
    """The command's JSON, once it has exited 0; pictures go to `site / "out"`."""

    def run(*argv):
        given = [str(each) for each in argv]
        assert main([*given, "--out", str(site / "out"), "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.fixture
def refused(site, capsys):
    """What a call that was wrong is told."""

    def run(*argv):
        assert main([*map(str, argv), "--out", str(site / "out")]) == 2
        return capsys.readouterr().err

    return run


def _clips(site, name="squares"):
    """All clips and their notes, read by another way."""
    store = LocalStore(str(site / "shards" / name))
    found = list(some_clips(store, load_manifest(store), 1000))
    return np.stack([clip for clip, _ in found]), [note for _, note in found]


def _model(name):
    return find_trained(name, Site.from_environment())


def test_evaluate_generators_says_how_still_each_is_beside_real_clips(finish, site, call):
    weights = _experiment("vgan_golf", LATENT).model.build().state_dict()
    weights["generator.video.mask.0.bias"] += -50  # everything is background
    still = finish(_experiment("vgan_golf", LATENT), weights=weights)
    one = finish(_experiment("vgan_golf_one_stream", LATENT), scale=40)
    told = call(still, one, "--clips", 20)
    of_still, of_one = (each["metrics"] for each in told["evaluations"])
    assert of_still["background_std"] == of_still["flicker"] == of_still["mask_mean"] == 0
    assert of_still["still_share"] == 1
    made = stillness(torch.from_numpy(_model(one).sample(range(20))["sample"].copy()))
    for name, values in made.items():
        assert of_one[name] == pytest.approx(float(values.mean()), rel=1e-3), name
        error = float(values.std()) / 20**0.5
        assert of_one[f"{name}_error"] == pytest.approx(error, rel=1e-2, abs=1e-6), name
    assert of_one["background_std"] > 0.1
    assert of_one["real_background_std"] == of_one["real_background_flicker"] == 0
    assert 0 < of_one["real_still_share"] < 1  # a square moves
    assert told["evaluations"][0]["details"] == {"generated_clips": 20, "real_clips": 20}
    assert told["evaluations"][0]["data"]["trained_on"]
    for name in (still, one):
        kept = json.loads((site / "runs" / name / "evaluation.json").read_text())
        assert kept == json.loads((site / "out" / name / "evaluation.json").read_text())
        assert kept in told["evaluations"]
        assert Image.open(site / "out" / name / "stillness.png").size[0] > 600


def test_evaluate_without_the_training_data_measures_what_is_generated(finish, call, capsys):
    run = finish(_experiment("vgan_golf", LATENT, "data.name=elsewhere"))
    evaluation = call(run, "--clips", 4)["evaluations"][0]
    assert evaluation["data"] is None
    assert "background_std" in evaluation["metrics"]
    assert not [name for name in evaluation["metrics"] if name.startswith("real_")]


def test_evaluate_distance_in_a_classifiers_features_is_that_of_its_features(finish, site, call):
    golf = finish(_experiment("vgan_golf", LATENT), scale=40)
    judge = finish(_experiment("ucf101_random", "model.classes=2"), scale=40)
    evaluation = call(golf, "--classifier", judge, "--clips", 40)["evaluations"][0]
    layers = _model(judge).learner.classifier.features

    def features(clips):
        video = torch.from_numpy(clips.copy()).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        with torch.no_grad():
            return layers(video).mean((2, 3, 4))

    real = features(_clips(site)[0])
    expected = frechet_distance(features(_model(golf).sample(range(40))["sample"]), real)
    assert expected > 0
    assert evaluation["metrics"]["frechet_classifier"] == pytest.approx(expected, rel=1e-2)
    assert 0 < evaluation["metrics"]["frechet_classifier_real_halves"] < expected
    how = evaluation["how"]["frechet_classifier"]
    assert how.startswith(f"Frechet distance in the features of {judge} at step 6")
    assert "40 generated against 40 real clips of 32 frames" in how
    assert "FVD" not in json.dumps(evaluation)
    assert "fvd" not in evaluation["metrics"]


@pytest.mark.usefixtures("labelled")
def test_evaluate_shows_the_judges_scores_beside_the_bound_and_its_accuracy(
    finish, site, capsys, call
):
    golf = finish(_experiment("vgan_golf", LATENT), scale=40)
    judge = _classifier(finish, seed=3)
    given = [golf, "--classifier", judge, "--data", "moves_test", "--clips", 20]
    metrics = call(*given)["evaluations"][0]["metrics"]
    learner = _model(judge).learner

    def scores(clips):
        """(I-score, Intra-E, Inter-E) by Eq. 10 to 12, as they are printed."""
        video = torch.from_numpy(clips.copy()).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        p = learner.predict(video).double().numpy().clip(1e-300)
        each = (p * np.log(p / p.mean(0))).sum(1)  # KL of each from the mean
        shares = np.array([(p.argmax(1) == k).mean() for k in range(3)])
        inter = -sum(share * np.log(share) for share in shares if share)
        return np.exp(each.mean()), -(p * np.log(p)).sum(), inter

    made = _model(golf).sample(range(20))["sample"]
    names = ("i_score", "intra_e", "inter_e")
    for name, value in zip(names, scores(made), strict=True):
        assert metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert metrics["intra_e_mean"] == pytest.approx(metrics["intra_e"] / 20)
    assert 1 <= metrics["real_i_score"] <= 3
    assert main([*map(str, given), "--out", str(site / "out")]) == 0
    told = capsys.readouterr().out
    (row,) = [line.split() for line in told.splitlines() if line.startswith("accuracy")]
    assert row == ["accuracy", "-", f"{metrics['real_accuracy']:.4g}"]
    assert "20 generated clips, real_* the 20 real ones" in told


class Brightness(torch.nn.Module):
    """Stands for I3D: a clip's mean level, alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3, 4))[:, None]


@pytest.fixture
def brightness(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Brightness()).save(str(tmp_path / "i3d.pt"))
    return tmp_path / "i3d.pt"


def test_evaluate_fvd_is_the_distance_in_the_features_of_the_given_weights(
    finish, site, call, brightness
):
    golf = finish(_experiment("vgan_golf", LATENT))
    metrics = call(golf, "--fvd-weights", brightness, "--clips", 40)["evaluations"][0]["metrics"]
    a, b = (
        each.reshape(40, -1).mean(1) / 127.5 - 1
        for each in (_clips(site)[0], _model(golf).sample(range(40))["sample"])
    )
    gaussians = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert metrics["fvd"] == pytest.approx(gaussians, rel=1e-2)


def test_evaluate_autoencoder_says_how_well_it_gives_clips_back(finish, site, call):
    run = finish(_experiment("vgan_autoencoder_golf", LATENT, "model.components=2"), scale=40)
    metrics = call(run, "--clips", 40)["evaluations"][0]["metrics"]
    real = _clips(site)[0]
    apart = _model(run).sample([0] * 40, real)["reconstruction"].astype(float) - real
    mse = (apart**2).mean()
    assert metrics["reconstruction_mae"] == pytest.approx(np.abs(apart).mean(), rel=1e-3)
    assert metrics["reconstruction_psnr"] == pytest.approx(10 * np.log10(255**2 / mse), rel=1e-3)
    variance = ((real - real.mean(0, keepdims=True)) ** 2).mean()
    assert metrics["reconstruction_r2"] == pytest.approx(1 - mse / variance, rel=1e-3)
    assert "background_std" in metrics
    sheet = np.asarray(Image.open(site / "out" / run / "reconstructions.png"))
    assert sheet.shape[0] == 4 * (4 + 2 * 132)


def test_evaluate_future_says_how_far_it_is_from_what_came(finish, site, call):
    run = finish(_experiment("vgan_future_golf"), scale=40)
    metrics = call(run, "--clips", 40)["evaluations"][0]["metrics"]
    real = _clips(site)[0].astype(float)
    future = _model(run).sample([0] * 40, _clips(site)[0][:, :1])["sample"].astype(float)
    first, later = np.abs(future - real)[:, :1].mean(), np.abs(future - real)[:, 1:].mean()
    assert metrics["first_frame_mae"] == pytest.approx(first, rel=1e-3)
    assert metrics["future_mae"] == pytest.approx(later, rel=1e-3)
    still = np.abs(real[:, :1] - real)[:, 1:].mean()
    assert metrics["still_mae"] == pytest.approx(still, rel=1e-3)
    assert (site / "out" / run / "futures.mp4").stat().st_size > 1000


def test_evaluate_shows_where_the_units_of_the_third_layer_fire(finish, site, call):
    """The clips are black but for a square: a unit that adds up all light fires on squares."""
    golf = _experiment("vgan_golf", LATENT)
    weights = golf.model.build().state_dict()
    for name in weights:
        if name.startswith("discriminator.features") and name.endswith("weight"):
            weights[name] = torch.ones_like(weights[name])
    still = finish(_experiment("vgan_future_golf"), scale=40)
    run = finish(golf, weights=weights)
    for told in call(run, still, "--clips", 20)["evaluations"]:
        assert told["how"]["units"].startswith("units of the detectors' layer 3")
    sheets = [np.asarray(Image.open(site / "out" / n / "units.png")) for n in (run, still)]
    left = pictures.LABEL_WIDTH + 4
    assert {sheet.shape[:2] for sheet in sheets} == {(4 + 4 * 132, left + 6 * 132)}  # width 1
    strongest = sheets[0][4:132, left : left + 128]
    assert (strongest == 220).all(2).any()
    assert (strongest < 60).all(2).any()  # the rest is dark
    assert not (site / "out" / still / "units.gif").exists()
    assert Image.open(site / "out" / run / "units.gif").n_frames == 32


@pytest.fixture
def labelled(site, make_dataset):
    """A train and a test dataset of 3 classes; the test's 36 clips are of 12 videos."""
    for name in ("moves_train", "moves_test"):
        make_dataset(site / "shards" / name, clips=36, sources=12, labels=("jump", "run", "walk"))


def _classifier(finish, seed=0, mode="random", fraction=1.0, classes=3, names=(), **options):
    more = [f"model.classes={classes}", "data.name=moves_train", f"seed={seed}"]
    begun = ["init_from=vgan_golf-0a1b2c3d"] if mode == "finetune" else []
    experiment = _experiment(f"ucf101_{mode}", *more, *begun, f"data.fraction={fraction}")
    name = f"ucf101_{mode}-{seed:04d}{round(1000 * fraction):04d}"
    return finish(experiment, name=name, seed=seed, scale=40, classes=names, **options)


def _expected_accuracy(site, run):
    """(of videos, of clips) by NumPy."""
    clips, notes = _clips(site, "moves_test")
    video = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    probabilities = _model(run).learner.predict(video).numpy()
    place = {"jump": 0, "run": 1, "walk": 2}
    right, clips_right = [], 0
    for source in {note["source"] for note in notes}:
        rows = [n for n, note in enumerate(notes) if note["source"] == source]
        label = place[notes[rows[0]]["labels"][0]]
        right.append(probabilities[rows].mean(0).argmax() == label)
        clips_right += sum(probabilities[n].argmax() == label for n in rows)
    return np.mean(right), clips_right / len(notes)


@pytest.mark.usefixtures("labelled")
def test_evaluate_classifiers_counts_videos_and_averages_the_splits(finish, site, call):
    runs = [_classifier(finish, seed) for seed in range(3)]
    told = call(*runs)
    accuracies = []
    for run, evaluation in zip(runs, told["evaluations"], strict=True):
        metrics = evaluation["metrics"]
        of_videos, of_clips = _expected_accuracy(site, run)
        assert metrics["accuracy"] == pytest.approx(of_videos)
        assert metrics["clip_accuracy"] == pytest.approx(of_clips)
        assert (metrics["videos"], evaluation["clips"]) == (12, 36)
        assert metrics["chance"] == metrics["majority"] == pytest.approx(1 / 3)
        confusion = np.array(evaluation["details"]["confusion"])
        assert confusion.sum(1).tolist() == [4, 4, 4]
        assert np.trace(confusion) / 12 == pytest.approx(of_videos)
        assert evaluation["data"]["name"] == "moves_test"
        assert not evaluation["data"]["trained_on"]
        accuracies.append(of_videos)
    assert told["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert (site / "out" / runs[0] / "confusion.png").stat().st_size > 1000


@pytest.mark.usefixtures("labelled")
def test_evaluate_curve_draws_all_runs_and_measures_only_what_is_new(finish, site, call):
    runs = [
        _classifier(finish, seed, mode, fraction)
        for mode in ("random", "finetune")
        for fraction in (0.5, 1.0)
        for seed in range(2)
    ]
    first = call(runs[0])["evaluations"][0]
    kept = site / "runs" / runs[0] / "evaluation.json"
    kept.write_text(json.dumps(first | {"metrics": first["metrics"] | {"accuracy": 0.123}}))
    told = call("--curve", *runs)
    assert "mean" not in told
    curve = told["curve"]
    assert [series["mode"] for series in curve["series"]] == ["finetune", "random"]
    half, whole = curve["series"][1]["points"]
    other = _expected_accuracy(site, runs[1])[0]
    assert (half["fraction"], whole["fraction"]) == (0.5, 1.0)
    assert half["mean"] == pytest.approx((0.123 + other) / 2)
    assert half["runs"] == runs[:2]
    assert json.loads((site / "out/curve.json").read_text())["chance"] == pytest.approx(1 / 3)
    assert Image.open(site / "out/curve.png").size[0] > 1000


def test_evaluate_in_a_jobs_log_says_how_far_it_is(finish, site, capsys, monkeypatch):
    monkeypatch.setattr("orchestrator.clips._TOLD_EVERY_S", -1.0)
    run = finish(_experiment("vgan_golf", LATENT))
    assert main([run, "--clips", "40", "--out", str(site / "out")]) == 0
    told = capsys.readouterr().err
    assert "generated: 32 of 40 clips\ngenerated: 40 of 40 clips\n" in told
    assert "real: 40 of 40 clips" in told


def test_evaluate_tells_mlflow_metrics_and_pictures(finish, site, call, tmp_path):
    run, here = finish(_experiment("vgan_golf", LATENT)), Site.from_environment()
    client = MlflowClient(here.mlflow_uri)
    run_id = create_run(client, here.mlflow_uri, name=run, experiment="vgan").info.run_id
    metrics = call(run, "--clips", 4)["evaluations"][0]["metrics"]
    record = client.get_run(run_id)
    assert record.data.metrics == {f"val/{name}": value for name, value in metrics.items()}
    history = client.get_metric_history(run_id, "val/background_std")
    assert [point.step for point in history] == [6]
    folder = Path(client.download_artifacts(run_id, "evaluation", str(tmp_path)))
    names = {"evaluation.json", "stillness.png", "units.gif", "units.png"}
    assert {p.name for p in folder.iterdir()} == names


@pytest.mark.usefixtures("labelled")
def test_evaluate_wrong_calls_say_what_is_right(finish, site, refused, make_dataset, tmp_path):
    golf = finish(_experiment("vgan_golf", LATENT))
    mover = _classifier(finish, names=("jump", "run", "walk"))
    future = finish(_experiment("vgan_future_golf", "data.name=elsewhere"))
    four = _classifier(finish, seed=4, classes=4)
    lone = finish(_experiment("ucf101_random", "model.classes=3"), name="lone-0a1b2c3d")
    make_dataset(site / "shards/others", clips=6, labels=("jump", "run", "sit"))
    assert "did you mean 'vgan_golf-0a1b2c3d'" in refused("vgan_golf-0a1b")
    assert "--clips=1: must be from 2" in refused(golf, "--clips", 1)
    assert "did you mean 'squares'" in refused(golf, "--data", "square")
    assert "goes on from clips: give --data NAME" in refused(future)
    assert "--classifier: vgan_golf-0a1b2c3d is a generator" in refused(golf, "--classifier", golf)
    assert "it has no clips for a distance" in refused(mover, "--classifier", mover)
    assert "cannot be read" in refused(golf, "--fvd-weights", tmp_path / "no.pt")
    assert "model.classes=4: the dataset at" in refused(four)
    assert "name the clips to test it with" in refused(lone)
    told = refused(mover, "--data", "others")
    assert "knows the classes of moves_train; the clips have others: sit, walk" in told
    assert "its clips have no labels" in refused(mover, "--data", "squares")
    assert "vgan_golf-0a1b2c3d is no classifier" in refused("--curve", golf)
    assert f"{mover} is given twice" in refused("--curve", mover, mover)
    away = finish(_experiment("vgan_golf", LATENT, "data.name=away"), name="away-0a1b2c3d")
    assert "give --data NAME" in refused(away, "--classifier", mover)


@pytest.mark.usefixtures("labelled")
def test_evaluate_curve_of_runs_on_different_clips_is_refused(finish, site, refused, make_dataset):
    make_dataset(site / "shards/other_test", clips=6, labels=("jump", "run", "walk"))
    one = _classifier(finish)
    other = override(_experiment("ucf101_random", "model.classes=3"), ["data.name=other_train"])
    told = refused("--curve", one, finish(other, name="other-0a1b2c3d", scale=40))
    assert "measured with different clips (moves_test, other_test)" in told


def test_evaluate_of_clips_that_cannot_be_read_fails_and_says_so(finish, site, capsys):
    run = finish(_experiment("vgan_golf", LATENT))
    for tar in (site / "shards/squares/shards").glob("*.tar"):
        tar.write_bytes(b"\0" * tar.stat().st_size)
    assert main([run, "--clips", "4", "--out", str(site / "out")]) == 1
    assert "error: " in capsys.readouterr().err
