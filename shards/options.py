"""The arguments of an ingest, and the recipe that they say."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, Literal

from shards import kth
from shards.recipe import (
    RECIPES,
    SCENES,
    DrawnSplit,
    Recipe,
    SceneFilter,
    Split,
    WithinSplit,
    find_recipe,
)
from shards.scene import scene_filter
from shards.ucf101 import find_split
from shards.watch import Limits

PART_OF: dict[str, Literal["frames", "clips"]] = {"weizmann": "frames", "chairs": "clips"}
"""What --part parts, where it is not the sources of a class."""
SHARES: dict[Any, float] = {"frames": 1 / 3, "clips": 1 / 4}
"""VideoVAE's (2018, Section 5.1) test shares of a video's frames and of a chair's sequences."""


def parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Parses what `recipe_of` and `limits_of` read."""
    made = argparse.ArgumentParser(
        prog=prog,
        description=description,
        allow_abbrev=False,  # a job's line is searched for options such as --fresh
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("source", metavar="SRC", help="folder of videos, or list of paths or URLs")
    add("destination", metavar="DST", help="the dataset to make")
    add("--recipe", default="flickr", help=f"one of: {', '.join(RECIPES)}")
    add("--workers", type=int, help="tasks at a time (default: every CPU)")
    add("--frames", type=int, help="of a clip (default: the recipe's)")
    add("--size", type=int, help="side of a frame in pixels (default: the recipe's)")
    add("--stabilizer", help="sift, sift320 (default of flickr), lk, or none")
    add("--fit", help="to a square: crop its middle, squash it, or pad it with black")
    add("--encoding", help="jpg (default) or u8")
    add("--scene", help=f"keep only clips of it: {', '.join(SCENES)}, or any label")
    add("--scene-model", help="classifier of places: TorchScript, or .onnx")
    add("--scene-labels", help="its labels, one per line")
    add("--scene-score", type=float, default=0.2, help="probability to ask for (default: 0.2)")
    add("--split", metavar="LIST", help="recipe ucf101: only what trainlist01.txt, say, names")
    add("--actions", metavar="A,B", help=f"recipe kth: only these of {', '.join(kth.ACTIONS)}")
    add("--clips", type=int, metavar="N", help="so many of each video; 0: one after the other")
    add("--part", help="train or test: only this part of what there is")
    add("--part-of", help="sources of a class, each video's frames (weizmann), or clips (chairs)")
    add("--test-share", type=float, help="of the test part (default: 0.33; of frames a third)")
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
    names = ("stabilizer", "encoding", "duplicate_bits", "frames", "fit")
    changes = {name: getattr(given, name) for name in names}
    changes["size_px"] = given.size
    changes["shard_bytes"] = given.shard_mib and given.shard_mib << 20
    changes["scene"] = _scene(given, recipe)
    changes["split"] = _split(given, recipe)
    changes["actions"] = kth.chosen(given.actions) if given.actions is not None else None
    if given.frames is not None:
        changes["least_frames"] = min(recipe.least_frames, given.frames)
    changes = _given(changes)
    if given.clips is not None:
        changes["clips"] = given.clips or None
    return dataclasses.replace(recipe, **changes)


def limits_of(given: argparse.Namespace) -> Limits:
    """The limits of one source. Raises ValueError."""
    return Limits(**_given({"stall_s": given.stall_timeout, "total_s": given.source_timeout}))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _split(given: argparse.Namespace, recipe: Recipe) -> Split | None:
    if given.split and given.part:
        raise ValueError("--split and --part: only one of them")
    if given.split:
        return find_split(_absolute(given.split))
    how = _given({"test_share": given.test_share, "together": given.together})
    if not given.part:
        if how or given.part_of:
            raise ValueError(
                "--part-of, --test-share and --together are of --part train or --part test"
            )
        return None
    of = given.part_of or PART_OF.get(recipe.name, "sources")
    if of == "sources":
        return DrawnSplit(part=given.part, **how)
    if of not in SHARES:
        raise ValueError(f"--part-of {of}: choose one of sources, {', '.join(SHARES)}")
    if given.together is not None:
        raise ValueError(f"--together is of --part-of sources, and these are parts of {of}")
    share = SHARES[of] if given.test_share is None else given.test_share
    return WithinSplit(part=given.part, of=of, test_share=share)


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
