"""What a user may type for a trained model, against real checkpoints and a real MLflow store."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from models.vgan import VganConfig
from orchestrator import registry
from orchestrator.checkpoint import Checkpoints
from orchestrator.experiments import EXPERIMENTS
from orchestrator.mlflow_runs import create_run
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.trained import find_trained
from shards.storage import LocalStore

SMALL = ["model.width=1", "model.latent=3", "budget.steps=6"]
GOLF = override(EXPERIMENTS["vgan_golf"], SMALL)


@pytest.fixture
def golf(finish):
    return finish(GOLF)


@pytest.fixture
def here(site):
    return Site.from_environment()


def _weights(trained):
    return trained.learner.state_dict()["generator.video.trunk.0.weight"]


def _register(here, name):
    """The run `name` in MLflow, its model as vgan_golf's next version; (its id, the version)."""
    client = MlflowClient(here.mlflow_uri)
    run_id = create_run(client, here.mlflow_uri, name=name, experiment="vgan").info.run_id
    learner = find_trained(name, here).learner
    return run_id, registry.register(client, run_id, GOLF, learner.state_dict())


def test_find_trained_by_name_path_and_checkpoint_is_the_same_model(golf, finish, here):
    finish(GOLF, seed=1, step=9)
    folder = Path(here.run(golf))
    newest = [golf, str(folder), f"{folder}/checkpoints/00000009"]
    older = [f"{folder}/checkpoints/00000006", f"{folder}/checkpoints/00000006/state.pt"]
    for text, step, seed in [(t, 9, 1) for t in newest] + [(t, 6, 0) for t in older]:
        found = find_trained(text, here)
        torch.manual_seed(seed)
        expected = GOLF.model.build().generator.video.trunk[0].weight
        assert (found.name, found.step, found.kind) == (golf, step, "generator")
        assert torch.equal(_weights(found), expected)
        assert found.record["budget"]["steps"] == 6
        assert found.location == str(folder)


def test_find_trained_registered_model_is_found_by_name_version_id_and_folder(golf, here, finish):
    run_id, registered = _register(here, golf)
    other = finish(GOLF, name="vgan_golf-99999999", seed=5)
    _, newer = _register(here, other)
    assert (registered, newer) == ("vgan_golf/1", "vgan_golf/2")
    for text, name in [
        ("models:/vgan_golf/1", golf),
        ("models:/vgan_golf/2", other),
        ("models:/vgan_golf", other),
        ("vgan_golf", other),
        (run_id, golf),
    ]:
        found = find_trained(text, here)
        assert (found.name, found.step) == (name, 6)
        assert torch.equal(_weights(found), _weights(find_trained(name, here)))
    folder = MlflowClient(here.mlflow_uri).download_artifacts(run_id, "model")
    assert find_trained(folder, here).name == golf


def test_find_trained_registered_model_needs_no_run_folder(golf, here):
    _register(here, golf)
    expected = _weights(find_trained(golf, here))
    shutil.rmtree(here.run(golf))
    found = find_trained("models:/vgan_golf/1", here)
    assert found.location is None
    assert found.record["data"]["name"] == "flickr_golf"
    assert torch.equal(_weights(found), expected)


def test_find_trained_classifier_knows_its_classes_by_name(here, finish, tmp_path):
    ucf = override(EXPERIMENTS["ucf101_random"], ["model.width=1", "model.classes=2"])
    run = finish(ucf, classes=("run", "walk"))
    found = find_trained(run, here)
    assert found.classes == ["run", "walk"]
    weights = found.learner.state_dict()
    registry.save(tmp_path / "model", ucf, weights, run=run, names={"classes": found.classes})
    assert find_trained(str(tmp_path / "model"), here).classes == ["run", "walk"]
    about = yaml.safe_load((tmp_path / "model/MLmodel").read_text())
    assert about["metadata"] == {"classes": ["run", "walk"]}


def test_sample_is_a_function_of_each_seed_alone(golf, here):
    trained = find_trained(golf, here)
    many = trained.sample(range(5, 25))["sample"]
    assert many.shape == (20, 32, 64, 64, 3)
    assert many.dtype == np.uint8
    one = trained.sample([17])["sample"]
    assert np.abs(many[12].astype(int) - one[0]).max() <= 1  # convolutions round by batch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vgan_golf-0a1b", "did you mean 'vgan_golf-0a1b2c3d'"),
        ("nothing_like_it", "no run 'nothing_like_it'"),
        ("models:/vgan_golf/7", "no model 'vgan_golf' is registered"),
        ("models:/a/b/c", "a registered model is models:/NAME, models:/NAME/VERSION or"),
        ("./nowhere", "no run, it has no attempts and no checkpoints folder"),
        ("RUN/checkpoints/00000007", "no such checkpoint; at .* there are: 00000006"),
        ("0" * 32, "has no run with the id"),
    ],
)
def test_find_trained_of_what_is_not_there_says_what_is(golf, here, text, message):
    with pytest.raises(ValueError, match=message):
        find_trained(text.replace("RUN", here.run(golf)), here)


def test_find_trained_of_a_version_that_is_not_there_lists_those_there_are(golf, here):
    _register(here, golf)
    with pytest.raises(ValueError, match="vgan_golf has the versions 1"):
        find_trained("models:/vgan_golf/2", here)


def test_find_trained_of_another_models_weights_names_one_that_does_not_fit(here, finish):
    torch.manual_seed(0)
    wide = VganConfig(width=2, latent=3).build().state_dict()
    name = finish(GOLF, name="wrong", weights=wide)
    with pytest.raises(ValueError, match=r"of another model than VganConfig.*\(2,.*not \(1,"):
        find_trained(name, here)
    one_stream = VganConfig(width=1, latent=3, two_stream=False).build().state_dict()
    finish(GOLF, name="wrong", weights=one_stream, step=8)
    with pytest.raises(ValueError, match=r"generator\.static.* is missing, not"):
        find_trained(f"{here.run(name)}/checkpoints/00000008", here)


def test_find_trained_damaged_checkpoint_is_passed_over_and_named_where_asked_for(
    golf, here, finish
):
    finish(GOLF, seed=1, step=9)
    state = Path(here.run(golf), "checkpoints/00000009/state.pt")
    state.write_bytes(state.read_bytes()[:-100])
    assert find_trained(golf, here).step == 6
    with pytest.raises(ValueError, match=f"{re.escape(str(state))}: .* does not match its sha256"):
        find_trained(str(state), here)


def test_find_trained_of_an_experiment_or_a_field_nobody_knows_says_so(golf, here):
    checkpoints = Checkpoints(LocalStore(here.run(golf)), keep=2)
    saved = checkpoints.load(6)
    for old, new, message in [
        ('"vgan_golf"', '"vgan_gulf"', r"no experiment 'vgan_gulf'.*did you mean 'vgan_golf"),
        ('"latent"', '"letant"', r"a VganConfig of another version: .*letant"),
    ]:
        facts = json.loads(json.dumps(saved.facts).replace(old, new))
        checkpoints.save(6, saved.state, facts)
        with pytest.raises(ValueError, match=message):
            find_trained(golf, here)


def test_find_trained_of_a_run_without_checkpoint_says_train_it_first(site, here):
    folder = site / "runs" / "young"
    (folder / "attempts").mkdir(parents=True)
    (folder / "attempts/0001.json").write_text("{}")
    with pytest.raises(ValueError, match=r"young: there is no checkpoint at .* yet"):
        find_trained("young", here)


def test_find_trained_of_a_folder_with_a_foreign_model_says_so(tmp_path, here):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/MLmodel").write_text("flavors: {}")
    with pytest.raises(ValueError, match="not a model that this version registered"):
        find_trained(str(tmp_path / "model"), here)
