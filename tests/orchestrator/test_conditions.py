"""What a model is told of clips besides their pixels."""

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from models.captions import tokens
from orchestrator.conditions import class_names, conditions_of, teller
from shards.bouncing import Bouncing, find_glyphs
from shards.dataset import open_dataset
from shards.generated import generate
from shards.read import Reader, Slice
from shards.storage import open_store


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


class Attributes:
    conditions = ("attributes_ba",)
    values = (2, 3)


class Joint:
    conditions = ("joint_b",)
    classes = 6
    without = ""


NOTES = [
    {"attributes": {"person": "ida", "action": "walk"}},
    {"attributes": {"person": "ada", "action": "run"}},
    None,
    {"attributes": {"person": "eva", "action": "walk"}},
]


@pytest.fixture
def people(tmp_path, make_dataset, monkeypatch):
    """A dataset that says to have two actions and three persons."""
    make_dataset(tmp_path / "people", clips=4, shards=1)
    dataset = open_dataset(str(tmp_path / "people"))
    known = {"action": ["run", "walk"], "person": ["ada", "eva", "ida"]}
    monkeypatch.setattr(type(dataset), "attributes", property(lambda _self: known))
    return dataset


SPOILED = SimpleNamespace(
    json=[note or {} for note in NOTES], valid_b=np.array([True, True, False, True])
)


def test_conditions_attributes_are_places_in_the_order_of_their_names(people):
    found = conditions_of(Attributes(), people)(SPOILED)["attributes_ba"]
    assert found.tolist() == [[1, 2], [0, 0], [0, 0], [1, 1]]
    wrong = Attributes()
    wrong.values = (3, 2)
    with pytest.raises(ValueError, match=r"model.attributes=\(3, 2\): .* 2 of action, 3 of person"):
        conditions_of(wrong, people)


def test_conditions_joint_is_every_combination_and_may_leave_one_attribute_out(people):
    assert conditions_of(Joint(), people)(SPOILED)["joint_b"].tolist() == [5, 0, 0, 4]
    assert class_names(Joint(), people)[5] == "walk ida"
    without = Joint()
    without.without, without.classes = "person", 2
    assert teller(without, people)(NOTES).tolist() == [1, 0, 0, 1]
    assert class_names(without, people) == ["run", "walk"]
    without.classes = 6
    with pytest.raises(ValueError, match=r"model.classes=6: .* have 2 of action"):
        conditions_of(without, people)


def test_attributes_of_clips_with_labels_only_are_their_labels(tmp_path, make_dataset):
    make_dataset(tmp_path / "labelled", labels=("jump", "run", "walk"))
    make_dataset(tmp_path / "none")
    dataset = open_dataset(str(tmp_path / "labelled"))
    notes = [{"labels": ["walk"]}, {"labels": ["jump"]}]
    labels = Joint()
    labels.classes = 3
    assert teller(labels, dataset)(notes).tolist() == [2, 0]
    with pytest.raises(ValueError, match="no attributes and no labels"):
        conditions_of(Joint(), open_dataset(str(tmp_path / "none")))
