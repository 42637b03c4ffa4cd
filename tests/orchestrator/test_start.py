"""What a run starts from: weights, and what its losses ask of a clip."""

from contextlib import closing

import pytest
import torch

from models.captions import tokens
from models.vgan import VganConfig
from orchestrator.checkpoint import Checkpoints
from orchestrator.config import override
from orchestrator.experiments import EXPERIMENTS
from orchestrator.provided import PROVIDED, provide
from orchestrator.site import Site
from orchestrator.start import conditions_of, new_learner
from shards.bouncing import Bouncing, find_glyphs
from shards.dataset import open_dataset
from shards.generated import generate
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


class Asks:
    conditions = ("label_b",)
    classes = 2


def test_conditions_label_is_the_class_in_sorted_order_and_a_spoiled_clip_has_none(
    tmp_path, make_dataset
):
    make_dataset(tmp_path / "d", clips=8, shards=2, labels=("walk", "jump"))
    dataset = open_dataset(str(tmp_path / "d"))
    label_of = conditions_of(Asks(), dataset)
    whole = Slice(rank=0, world_size=1, global_batch=8)
    with closing(Reader(dataset, seed=0, slice=whole, with_json=True).batches(0)) as batches:
        batch = next(batches)
    walks = [int(key.removeprefix("clip")) % 2 == 0 for key in batch.keys]
    assert label_of(batch)["label_b"].tolist() == [int(walk) for walk in walks]
    batch.valid_b[3], batch.json[3] = False, {}
    assert label_of(batch)["label_b"][3] == 0


def test_conditions_of_another_number_of_classes_name_those_there_are(tmp_path, make_dataset):
    make_dataset(tmp_path / "three", labels=("a", "b", "c"))
    make_dataset(tmp_path / "none")
    with pytest.raises(ValueError, match=r"model.classes=2: .* has 3 classes \(a, b, c\)"):
        conditions_of(Asks(), open_dataset(str(tmp_path / "three")))
    with pytest.raises(ValueError, match="its clips have no labels"):
        conditions_of(Asks(), open_dataset(str(tmp_path / "none")))


class Reads:
    conditions = ("caption_bl",)
    vocabulary = 19
    words = 8


def test_conditions_caption_is_its_words_places_from_one_and_zeros(tmp_path):
    generate(open_store(str(tmp_path / "d")), Bouncing(count=6), find_glyphs(None))
    dataset = open_dataset(str(tmp_path / "d"))
    caption_of = conditions_of(Reads(), dataset)
    whole = Slice(rank=0, world_size=1, global_batch=6)
    with closing(Reader(dataset, seed=0, slice=whole, with_json=True).batches(0)) as batches:
        batch = next(batches)
    batch.valid_b[3], batch.json[3] = False, {}
    found = caption_of(batch)["caption_bl"]
    assert found.shape == (6, 8)
    for row, note, valid in zip(found.tolist(), batch.json, batch.valid_b, strict=True):
        told = [dataset.words[place - 1] for place in row if place]
        assert told == (note["caption"].split() if valid else dataset.words[:1])
        assert row[len(told) :] == [0] * (8 - len(told))


def test_captions_that_do_not_fit_the_model_say_what_does(tmp_path, make_dataset):
    generate(open_store(str(tmp_path / "d")), Bouncing(count=50), find_glyphs(None))
    make_dataset(tmp_path / "none")
    dataset = open_dataset(str(tmp_path / "d"))
    with pytest.raises(ValueError, match="has no captions"):
        conditions_of(Reads(), open_dataset(str(tmp_path / "none")))
    small = Reads()
    small.vocabulary = 18
    with pytest.raises(ValueError, match=r"have 18 words, .* set model.vocabulary=19"):
        conditions_of(small, dataset)
    with pytest.raises(ValueError, match="no word 'dogit'; did you mean 'digit'"):
        tokens(["dogit 3 is moving up and down"], dataset.words, 8)
    with pytest.raises(ValueError, match=r"must have 1 to 8 words"):
        tokens(["digit " * 9], dataset.words, 8)


def test_conditions_scene_is_what_the_caption_says(tmp_path, make_dataset):
    class Judge:
        conditions = ("scene_bk",)

    generate(open_store(str(tmp_path / "d")), Bouncing(digits=2, count=6), find_glyphs(None))
    dataset = open_dataset(str(tmp_path / "d"))
    whole = Slice(rank=0, world_size=1, global_batch=6)
    with closing(Reader(dataset, seed=0, slice=whole, with_json=True).batches(0)) as batches:
        batch = next(batches)
    found = conditions_of(Judge(), dataset)(batch)["scene_bk"]
    for row, note in zip(found, batch.json, strict=True):
        pairs = zip(note["digits"], note["motions"], strict=True)
        assert set(row.nonzero()[0]) == {2 * digit + motion for digit, motion in pairs}
    make_dataset(tmp_path / "none")
    with pytest.raises(ValueError, match="has no captions"):
        conditions_of(Judge(), open_dataset(str(tmp_path / "none")))


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
