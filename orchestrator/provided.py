"""Datasets that need nothing brought: made where they are asked for and are not there yet."""

from __future__ import annotations

import sys

from orchestrator.site import Site
from shards.bouncing import Bouncing, find_glyphs
from shards.generated import generate
from shards.manifest import MANIFEST
from shards.storage import open_store

_DIGITS = {"one": 1, "two": 2}
PROVIDED: dict[str, Bouncing] = {
    f"bouncing_{word}_{part}": Bouncing(digits=digits, part=part, count=count)  # type: ignore[arg-type]
    for word, digits in _DIGITS.items()
    for part, count in (("train", 12_000), ("test", 2_000), ("unseen", 2_000), ("all", 12_000))
}


def provide(name: str, site: Site) -> None:
    """Makes the dataset `name` of SHARDS_ROOT if it is one of these and is missing: in seconds, and
    of scikit-learn's digits (`python -m shards.generated` takes MNIST's)."""
    clips = PROVIDED.get(name)
    if clips is None:
        return
    store = open_store(site.dataset(name))
    if not any(found == MANIFEST for found, _ in store.list(MANIFEST)):
        print(
            f"making the dataset {name} at {store.location}: {clips.count} clips of scikit-learn's "
            f"digits; for MNIST's: python -m shards.generated {site.dataset(name)} --pictures DIR "
            f"--digits {clips.digits} --part {clips.part} --count {clips.count}",
            file=sys.stderr,
        )
        generate(store, clips, find_glyphs(None))
