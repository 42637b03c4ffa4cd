"""What a run starts from: weights, and what its losses ask of a clip."""

from contextlib import closing

import pytest
import torch

from models.vgan import VganConfig
from orchestrator.checkpoint import Checkpoints
from orchestrator.experiments import EXPERIMENTS
from orchestrator.overrides import override
from orchestrator.provided import PROVIDED, provide
from orchestrator.site import Site
from orchestrator.start import new_learner
from shards.bouncing import Bouncing
from shards.dataset import open_dataset
from shards.read import Reader, Slice
from shards.storage import open_store

SMALL = override(EXPERIMENTS["vgan_golf"], ["model.width=1", "model.latent=2"])


@pytest.fixture
def site(tmp_path):
    return Site(
        shards_root=str(tmp_path),
        shards_cache=str(tmp_path / "cache"),
        runs_root=str(tmp_path / "runs"),
        mlflow_uri="",
    )


def _finish(site, name, learner):
    checkpoints = Checkpoints(open_store(site.run(name)), keep=2)
    checkpoints.save(5, {"learner": learner.state_dict()}, {})


def test_new_learner_is_a_function_of_the_seed(site):
    one, same, other = (
        new_learner(override(SMALL, [f"seed={seed}"]), site).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(
        one["generator.video.trunk.0.weight"], other["generator.video.trunk.0.weight"]
    )


def test_new_learner_from_a_run_has_its_weights(site):
    torch.manual_seed(9)
    theirs = VganConfig(width=1, latent=2).build()
    _finish(site, "before", theirs)
    mine = new_learner(override(SMALL, ["init_from=before"]), site).state_dict()
    assert all(torch.equal(mine[name], weight) for name, weight in theirs.state_dict().items())


def test_new_learner_from_no_run_or_another_model_says_so(site):
    with pytest.raises(ValueError, match="init_from='nobody': there is no checkpoint at"):
        new_learner(override(SMALL, ["init_from=nobody"]), site)
    _finish(site, "wide", VganConfig(width=2, latent=2).build())
    with pytest.raises(ValueError, match=r"init_from='wide': .* weights of another model"):
        new_learner(override(SMALL, ["init_from=wide"]), site)


def test_new_learner_that_needs_weights_begins_from_a_vgans_discriminator_or_says_so(site):
    classifier = override(
        EXPERIMENTS["ucf101_finetune"], ["model.width=1", "model.classes=3", "seed=4"]
    )
    with pytest.raises(ValueError, match=r"init_from=None: ucf101_finetune begins .*; name it"):
        new_learner(classifier, site)
    theirs = VganConfig(width=1, latent=2).build()
    _finish(site, "gan", theirs)
    mine = new_learner(override(classifier, ["init_from=gan"]), site).state_dict()
    for name, weight in theirs.discriminator.features.state_dict().items():
        assert torch.equal(mine[f"classifier.features.{name}"], weight)
    head = mine["classifier.logits.weight"]
    other = new_learner(override(classifier, ["init_from=gan", "seed=5"]), site).state_dict()
    assert not torch.equal(head, other["classifier.logits.weight"])
    _finish(site, "wide", VganConfig(width=2, latent=2).build())
    with pytest.raises(ValueError, match=r"init_from='wide': .* set model.width=2"):
        new_learner(override(classifier, ["init_from=wide"]), site)


def test_provided_datasets_are_made_where_they_are_missing_and_others_are_not(
    site, monkeypatch, capsys
):
    monkeypatch.setitem(PROVIDED, "bouncing_two_test", Bouncing(digits=2, part="test", count=5))
    provide("bouncing_two_test", site)
    assert "5 clips of scikit-learn's digits" in capsys.readouterr().err
    dataset = open_dataset(site.dataset("bouncing_two_test"))
    assert (dataset.samples, dataset.manifest.recipe["clips"]["part"]) == (5, "test")
    provide("bouncing_two_test", site)
    provide("flickr", site)
    assert capsys.readouterr().err == ""
    with pytest.raises(FileNotFoundError):
        open_dataset(site.dataset("flickr"))


def test_fraction_of_a_dataset_is_the_first_clips_of_every_shard_under_a_version_of_its_own(
    tmp_path, make_dataset
):
    make_dataset(tmp_path / "d", clips=40, shards=4)

    def keys(fraction):
        dataset = open_dataset(str(tmp_path / "d"), fraction)
        epoch = Slice(rank=0, world_size=1, global_batch=dataset.samples)
        with closing(Reader(dataset, seed=1, slice=epoch).batches(0)) as batches:
            return sorted(next(batches).keys), dataset.version

    whole, third, least = keys(1.0), keys(0.3), keys(0.01)
    assert whole[0] == [f"clip{n:05d}" for n in range(40)]
    assert third[0] == [f"clip{n:05d}" for n in range(12)]  # clip n lies in shard n % 4
    assert least[0] == [f"clip{n:05d}" for n in range(4)]
    assert len({whole[1], third[1], least[1]}) == 3
