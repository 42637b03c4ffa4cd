"""The commands that docs/ingest.md gives for the datasets of the experiments are right."""

import shlex
from pathlib import Path

import pytest

from orchestrator.experiments import EXPERIMENTS
from shards import options
from shards.recipe import SCENES, find_recipe

PLACES = "--scene-model places365.pt --scene-labels categories_places365.txt"


@pytest.fixture(scope="module")
def documented():
    """{dataset: its parsed command}"""
    text = (Path(__file__).resolve().parents[3] / "docs/ingest.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("python -m shards.ingest ")]
    commands = [shlex.split(line.replace("PLACES", PLACES))[3:] for line in lines]
    found = [options.parser("shards.ingest", None).parse_args(command) for command in commands]
    return {Path(given.destination).name: given for given in found}


def test_every_dataset_of_vgan_has_a_command(documented):
    names = {each.data.name for each in EXPERIMENTS.values() if each.paper.startswith("VGAN")}
    assert names - documented.keys() == set()


def test_documented_commands_name_recipes_and_scenes_that_are_known(documented):
    for given in documented.values():
        recipe = find_recipe(given.recipe)
        assert (given.scene in SCENES) == (recipe.name == "flickr_filtered")
        assert bool(given.split) == (recipe.name == "ucf101")
    scenes = [given.scene for given in documented.values() if given.scene]
    assert sorted(scenes) == sorted(SCENES)
