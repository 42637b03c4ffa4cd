"""Which sources an ingest takes: all, those of an official list, or one part of each class.

A drawn part: the sources of a class, sorted by name, are taken `together` at a time; these runs are
sorted by the sha256 of their first name, and the first `test_share` of them, at least one and not
all, are the test part. So the two parts of one SRC share no source, every class is in both, and
nothing but the names decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from shards import chairs, kth, tgif, ucf101, weizmann
from shards.recipe import DrawnSplit, Recipe
from shards.sources import Source, find_sources


def taken(src: str, recipe: Recipe) -> Sequence[Source]:
    """Of the sources at `src` those that the recipe takes, with what it knows of them, by name.

    Raises FileNotFoundError and ValueError for a `src` that is not as the recipe reads it, and for
    a split that cannot be made.
    """
    found: Sequence[Source]
    found = tgif.taken(src) if recipe.reads == "gif" else find_sources(src, recipe.reads)
    match recipe.name:
        case "ucf101":
            found = ucf101.taken(found, src, recipe.split)
        case "kth":
            found = kth.taken(found, src, recipe.actions)
        case "weizmann":
            found = weizmann.taken(found, src)
        case "chairs":
            found = chairs.taken(found, src)
    return drawn(found, recipe.split) if isinstance(recipe.split, DrawnSplit) else found


def drawn(found: Sequence[Source], split: DrawnSplit) -> list[Source]:
    """The sources of the split's part. Raises ValueError for a class too small to be cut."""
    classes: dict[str, list[Source]] = {}
    for source in sorted(found, key=lambda source: source.name):
        classes.setdefault("".join(source.labels), []).append(source)
    small = [name for name, members in classes.items() if len(members) <= split.together]
    if small:
        raise ValueError(
            f"part={split.part!r}: too few sources to be in both parts in {len(small)} of "
            f"{len(classes)} classes ({', '.join(map(repr, small[:3]))}): each needs at least "
            f"{split.together + 1}; a class is a folder below SRC"
        )
    kept: set[str] = set()
    for members in classes.values():
        runs = [members[n : n + split.together] for n in range(0, len(members), split.together)]
        runs.sort(key=lambda run: hashlib.sha256(f"part {run[0].name}".encode()).digest())
        tests = min(max(1, round(split.test_share * len(runs))), len(runs) - 1)
        part = runs[:tests] if split.part == "test" else runs[tests:]
        kept.update(source.name for run in part for source in run)
    return [source for source in found if source.name in kept]
