"""The arguments of an ingest, and the recipe that they say."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from shards.recipe import RECIPES, SCENES, DrawnSplit, ListedSplit, Recipe, SceneFilter, find_recipe
from shards.scene import scene_filter
from shards.ucf101 import find_split
from shards.watch import Limits


def parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Parses what `recipe_of` and `limits_of` read."""
    made = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("source", metavar="SRC", help="folder of videos, or list of paths or URLs")
    add("destination", metavar="DST", help="the dataset to make")
    add("--recipe", default="flickr", help=f"one of: {', '.join(RECIPES)}")
    add("--workers", type=int, help="tasks at a time (default: every CPU)")
    add("--stabilizer", help="sift, sift320 (default), lk, or none (default of ucf101)")
    add("--encoding", help="jpg (default) or u8")
    add("--scene", help=f"keep only clips of it: {', '.join(SCENES)}, or any label")
    add("--scene-model", help="classifier of places: TorchScript, or .onnx")
    add("--scene-labels", help="its labels, one per line")
    add("--scene-score", type=float, default=0.2, help="probability to ask for (default: 0.2)")
    add("--split", metavar="LIST", help="recipe ucf101: only what trainlist01.txt, say, names")
    add("--part", help="train or test: only this part of the sources of each class")
    add("--test-share", type=float, help="of a class's sources, in the test part (default: 0.33)")
    add(
        "--together",
        type=int,
        metavar="N",
        help="with --part: never part N sources that follow one another by name (default: 1)",
    )
    add("--duplicate-bits", type=int, help="drop copies whose hashes differ in so many bits (0-7)")
    add("--shard-mib", type=int, help="size to aim at (default: 256)")
    add(
        "--stall-timeout",
        type=float,
        metavar="S",
        help="leave out a video that does not move for so many seconds (default: 120)",
    )
    add(
        "--source-timeout",
        type=float,
        metavar="S",
        help="leave out a video that takes longer in all (default: 6 hours)",
    )
    add("--fresh", action="store_true", help="replace what is at DST")
    return made


def recipe_of(given: argparse.Namespace) -> Recipe:
    """The registered recipe with what was given in its place.

    Raises ValueError and OSError for what cannot be meant; the files that it names are read.
    """
    recipe = find_recipe(given.recipe)
    changes = {name: getattr(given, name) for name in ("stabilizer", "encoding", "duplicate_bits")}
    changes["shard_bytes"] = given.shard_mib and given.shard_mib << 20
    changes["scene"] = _scene(given, recipe)
    changes["split"] = _split(given)
    return dataclasses.replace(recipe, **_given(changes))


def limits_of(given: argparse.Namespace) -> Limits:
    """The limits of one source. Raises ValueError."""
    return Limits(**_given({"stall_s": given.stall_timeout, "total_s": given.source_timeout}))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _split(given: argparse.Namespace) -> ListedSplit | DrawnSplit | None:
    drawn = _given({"test_share": given.test_share, "together": given.together})
    if given.split and given.part:
        raise ValueError("--split and --part: only one of them")
    if given.part:
        return DrawnSplit(part=given.part, **drawn)
    if drawn:
        raise ValueError("--test-share and --together are of --part train or --part test")
    return find_split(_absolute(given.split)) if given.split else None


def _scene(given: argparse.Namespace, recipe: Recipe) -> SceneFilter | None:
    asked = (given.scene, given.scene_model, given.scene_labels)
    if recipe.name == "flickr_filtered" and not all(asked):
        raise ValueError(
            "recipe 'flickr_filtered' needs --scene, --scene-model and --scene-labels: which clips "
            "to keep, and a classifier (for instance of Places365) that tells"
        )
    if not any(asked):
        return None
    if recipe.name != "flickr_filtered":
        raise ValueError(f"recipe {recipe.name!r} takes every scene; --recipe flickr_filtered asks")
    where = (_absolute(path) for path in asked[1:])
    return scene_filter(given.scene, given.scene_score, *where)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())
