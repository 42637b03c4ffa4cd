"""A dataset as a reader meets it: the manifest, its version, and the store it lies in."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

from shards.generated import whole
from shards.manifest import ATTRIBUTE, LABEL, WORD, Manifest, load_manifest
from shards.storage import Store, open_store

_NAMED = 3  # faults named in a message before "and n more"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An opened dataset. `version` is the manifest's hash.

    fraction: the share that is used: the first clips of every shard, at least one. Clips lie in a
    shard by their source's hash, so a smaller fraction's clips, and about its sources, are a part
    of a larger one's. It is a dataset of its own, with a version of its own.
    """

    manifest: Manifest
    store: Store
    fraction: float = 1.0
    version: str = field(default="")

    def __post_init__(self) -> None:
        version = self.version or self.manifest.version
        if self.fraction != 1.0:
            version = hashlib.sha256(f"{version} first {self.fraction}".encode()).hexdigest()
        object.__setattr__(self, "version", version)

    @property
    def sizes(self) -> list[int]:
        """Clips that are used of each shard, in the manifest's sequence."""
        return [math.ceil(shard.samples * self.fraction) for shard in self.manifest.shards]

    @property
    def samples(self) -> int:
        """Clips that are used."""
        return sum(self.sizes)

    @property
    def labels(self) -> list[str]:
        """The names of the classes that its clips belong to, sorted; empty without any."""
        return self._counted(LABEL)

    @property
    def words(self) -> list[str]:
        """The words of its clips' captions, sorted; empty without any."""
        return self._counted(WORD)

    @property
    def attributes(self) -> dict[str, list[str]]:
        """The values of each attribute that all of its clips have, sorted; empty without any."""
        values: dict[str, list[str]] = {}
        for counted in self._counted(ATTRIBUTE):
            name, _, value = counted.partition(" ")
            values.setdefault(name, []).append(value)
        return values

    def _counted(self, prefix: str) -> list[str]:
        counts = self.manifest.counts
        return sorted(name.removeprefix(prefix) for name in counts if name.startswith(prefix))


def open_dataset(location: str, fraction: float = 1.0) -> Dataset:
    """Opens the dataset at `location`, a folder or an `s3://` URL; see `Dataset` for a fraction.

    Every tar and index must be there with the size the manifest gives (one listing, nothing is
    read; `shards.verify` compares contents). Raises FileNotFoundError when there is no manifest,
    ValueError when the dataset is empty or its files do not match.
    """
    store = open_store(location)
    manifest = load_manifest(store)
    dataset = Dataset(manifest=manifest, store=whole(store, manifest), fraction=fraction)
    if dataset.samples == 0:
        raise ValueError(
            f"the dataset at {store.location} is empty: its manifest counts no samples "
            f"(sources and rejections: {dataset.manifest.counts})"
        )
    faults = size_faults(dataset)
    if faults:
        more = f", and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise ValueError(
            f"the dataset at {store.location} does not match its manifest: "
            f"{', '.join(faults[:_NAMED])}{more}. See all with `python -m shards.verify "
            f"{store.location}`; `--repair SOURCE` copies whole files from another copy"
        )
    return dataset


def size_faults(dataset: Dataset) -> list[str]:
    """What the listing says against the manifest, one line for each file; empty when it agrees."""
    present = dict(dataset.store.list("shards/"))
    faults = []
    for shard in dataset.manifest.shards:
        for name, size in ((shard.tar, shard.bytes), (shard.index, shard.index_bytes)):
            if name not in present:
                faults.append(f"{name} is missing")
            elif present[name] != size:
                faults.append(f"{name} has {present[name]} bytes, not {size}")
    return faults
