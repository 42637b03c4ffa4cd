"""Every kind of model through a worker: conditions, codes, real clips, and what it leaves."""

import json
import time

import pytest
import torch

from orchestrator.checkpoint import Checkpoints
from orchestrator.experiments import EXPERIMENTS
from orchestrator.loop import World
from orchestrator.overrides import override
from orchestrator.run import main
from orchestrator.site import Site
from orchestrator.start import new_learner
from orchestrator.trained import find_trained
from orchestrator.worker import Job, work
from shards.bouncing import Bouncing, find_glyphs
from shards.dataset import open_dataset
from shards.generated import generate
from shards.storage import open_store

SQUARES = ["data.name=squares", "data.global_batch=4", "model.width=1"]
VAE = [*SQUARES, "model.frames=32", "model.latent=3", "model.hidden=3"]
VAE += ["model.classifier_steps=2"]
DIGITS = ["data.name=digits", "data.global_batch=4", "model.hidden=8", "model.strokes=2"]
DIGITS += ["model.grid=3", "model.latent=3"]
KINDS = {
    "vgan_autoencoder_golf": [*SQUARES, "model.latent=3"],
    "vgan_future_golf": SQUARES,
    "vgan_future_golf_paper": [*SQUARES, "model.latent=3"],
    "ucf101_random": [*SQUARES, "model.classes=3"],
    "ucf101_finetune": [*SQUARES, "model.classes=3", "init_from=gan"],
    "ucf101_logreg": [*SQUARES, "model.classes=3", "init_from=gan"],
    "video_vae_weizmann": [*VAE, "model.attributes=3"],
    "video_vae_chairs_plain": VAE,
    "video_vae_chairs_static": VAE,
    "deep_rotator_chairs": [
        "data.name=squares",
        "data.global_batch=4",
        "model.width=2",
        "model.frames=32",
        "model.rotations=2",
        "model.units=2",
        "model.direction=0",
    ],
    "mocogan_weizmann": [*SQUARES, "model.frames=32", "model.content=2", "model.motion=2"],
    "clip_classifier_weizmann": [*SQUARES, "model.frames=32", "model.classes=3"],
    "bouncing_reader_one": ["data.name=digits", "data.global_batch=4", "model.width=1"],
    "sync_draw_one_digit": DIGITS,
    "sync_draw_global_one_digit": DIGITS,
    "sync_draw_baseline_one_digit_captions": [*DIGITS, "model.language=4"],
    "sync_draw_one_digit_aligned": [*DIGITS, "model.language=4"],
}


@pytest.fixture
def site(tmp_path, monkeypatch, make_dataset):
    make_dataset(tmp_path / "shards/squares", labels=("crawl", "run", "walk"))
    digits = open_store(str(tmp_path / "shards/digits"))
    generate(digits, Bouncing(count=40), find_glyphs(None))
    variables = {
        "SHARDS_ROOT": str(tmp_path / "shards"),
        "SHARDS_CACHE": str(tmp_path / "cache"),
        "RUNS_ROOT": str(tmp_path / "runs"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    site = Site.from_environment()
    gan = override(EXPERIMENTS["vgan_golf"], ["model.width=1"])
    state = {"learner": new_learner(gan, site).state_dict()}
    Checkpoints(open_store(site.run("gan")), keep=2).save(7, state, {})
    return site


def _trained(site, name, *assignments):
    """The weights after 4 steps, written by a worker of its own run."""
    small = [*KINDS[name], "budget.steps=4", "budget.log_every=1", "budget.samples=2"]
    small += ["resources.threads=1", "data.reader_threads=1", *assignments]
    experiment = override(EXPERIMENTS[name], small)
    job = Job(
        name=name,
        experiment=experiment,
        site=site,
        dataset_version=open_dataset(site.dataset(experiment.data.name)).version,
        git="unknown",
        command_at=time.time(),
        flops_per_clip=1,
    )
    done = work(job, World(), torch.device("cpu"))
    newest = Checkpoints(open_store(site.run(name)), keep=2).newest()
    assert newest.step == 4
    return newest.state["learner"], done["metrics"]


@pytest.mark.parametrize("name", KINDS)
def test_work_trains_samples_and_resumes_bit_for_bit(site, name):
    straight, metrics = _trained(site, name, "budget.checkpoint_every=2")
    assert all(torch.tensor(value).isfinite() for value in metrics.values())
    store = open_store(site.run(name))
    assert store.read("samples.gif").startswith(b"GIF89a")
    for gone in ("checkpoints/00000004", "result.json"):
        for path, _ in list(store.list("")):
            if path.startswith(gone):
                store.delete(path)
    resumed, _ = _trained(site, name, "budget.checkpoint_every=2")
    assert len(list(store.list("attempts/"))) == 2
    assert json.loads(store.read("attempts/0002.json"))["first_step"] == 2
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_work_keeps_the_names_of_what_a_model_is_told(site):
    for name, attributes in (
        ("video_vae_weizmann", ["label=crawl", "label=run", "label=walk"]),
        ("video_vae_chairs_plain", []),
    ):
        _trained(site, name)
        assert find_trained(name, site).attributes == attributes


def test_work_fits_the_mixture_to_the_codes_of_the_whole_dataset(site):
    state, _ = _trained(site, "vgan_autoencoder_golf")
    weights = state["mixture.weight_k"]
    assert (len(weights), int(weights.count_nonzero())) == (256, 4)  # 40 clips, 10 a component
    experiment = override(EXPERIMENTS["vgan_autoencoder_golf"], KINDS["vgan_autoencoder_golf"])
    learner = experiment.model.build()
    learner.load_state_dict(state)
    drawn = learner.sample(learner.noise(3, torch.Generator().manual_seed(0)))["sample"]
    assert drawn.shape == (3, 3, 32, 64, 64)


def test_work_of_logistic_regression_leaves_the_vgans_features_alone(site):
    state, metrics = _trained(site, "ucf101_logreg")
    gan = Checkpoints(open_store(site.run("gan")), keep=2).newest().state["learner"]
    names = [n for n in gan if n.startswith("discriminator.features.")]
    assert len(names) > 10
    for name in names:
        ours = state[name.replace("discriminator.", "classifier.")]
        assert torch.equal(ours, gan[name])
    assert 0 <= metrics["accuracy"] <= 1


@pytest.mark.parametrize("name", KINDS)
def test_plan_of_every_kind_of_model_counts_its_phases(site, capsys, name):
    assert main([name, *KINDS[name], "resources.use_gpu=false", "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["parameters"].keys() < plan["gflop_per_clip"].keys()
    assert all(count > 0 for count in plan["parameters"].values())
    assert plan["dataset"]["clips"] == 40


def test_plan_of_a_classifier_that_nothing_was_learned_for_says_what_is_missing(site, capsys):
    wrong = {
        "init_from=None: ucf101_finetune begins": ["ucf101_finetune", "model.classes=3"],
        "model.classes=101: the dataset": ["ucf101_random"],
        "mode=random begins with random": ["ucf101_random", "init_from=gan"],
        "set model.width=1": ["ucf101_logreg", "init_from=gan", "model.width=2"],
        "there is no checkpoint at": ["ucf101_finetune", "init_from=nobody"],
    }
    for message, (name, *assignments) in wrong.items():
        assert main([name, *SQUARES, *assignments, "--plan"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
