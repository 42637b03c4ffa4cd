"""The seal of a dataset: what it holds, shard by shard, and the hash that is its version.

`<dataset>/manifest.json` is written last. Its bytes are canonical JSON (sorted keys, no spaces), so
that equal content gives equal bytes; the dataset's *version* is their sha256. Nothing in it depends
on the dataset's name, the time, the machine or the number of workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from shards.storage import Store

SCHEMA = 1
MANIFEST = "manifest.json"
LABEL = "label "  # begins the counts of a class's clips
WORD = "word "  # begins those of a word in captions
ATTRIBUTE = "attribute "  # begins those of an attribute's clips, by its name and value
OF_CONTENT = (LABEL, WORD, ATTRIBUTE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFormat:
    """What every sample of a dataset looks like.

    encoding: `jpg` (vertical strip) or `u8` (raw, T H W C); the member's extension.
    detail: how it was encoded, for people: for instance `q95 4:4:4`.
    """

    frames: int
    height: int
    width: int
    channels: int
    fps: float
    encoding: str
    detail: str = ""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of one clip."""
        return (self.frames, self.height, self.width, self.channels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar and its index, with what is needed to know that they are whole."""

    name: str
    samples: int
    bytes: int
    sha256: str
    index_bytes: int
    index_sha256: str

    @property
    def tar(self) -> str:
        """The tar's name below the dataset."""
        return f"shards/{self.name}.tar"

    @property
    def index(self) -> str:
        """The index's name below the dataset."""
        return f"shards/{self.name}.idx"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A dataset, whole. `counts` says how many sources were read, kept, and rejected, by reason,
    and how many clips of each class were kept, `label <name>`, how many of each value of their
    attributes, `attribute <name> <value>`, and how often each word occurs in captions, in lower
    case, `word <word>`."""

    clip: ClipFormat
    shards: tuple[Shard, ...]
    recipe: dict[str, Any]
    counts: dict[str, int]

    @property
    def samples(self) -> int:
        """Clips in the dataset."""
        return sum(shard.samples for shard in self.shards)

    def to_json(self) -> bytes:
        """The canonical bytes of `manifest.json`."""
        value = {"schema": SCHEMA, "samples": self.samples, **dataclasses.asdict(self)}
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @property
    def version(self) -> str:
        """sha256 of the canonical bytes, in hex: the identity of the data."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @classmethod
    def from_json(cls, text: bytes, *, where: str) -> Manifest:
        """Parses `manifest.json`; `where` names it in messages.

        Raises ValueError for broken JSON, another schema, or counts that contradict each other.
        """
        try:
            value = json.loads(text)
            schema = value.pop("schema")
        except (ValueError, KeyError, AttributeError):
            raise ValueError(f"{where}: not a manifest") from None
        if schema != SCHEMA:
            raise ValueError(f"{where}: schema {schema}, this version reads schema {SCHEMA}")
        try:
            samples = value.pop("samples")
            value["clip"] = ClipFormat(**value["clip"])
            value["shards"] = tuple(Shard(**shard) for shard in value["shards"])
            manifest = cls(**value)
        except (TypeError, KeyError) as error:
            raise ValueError(f"{where}: not a manifest of schema {SCHEMA}: {error}") from None
        if samples != manifest.samples:
            raise ValueError(f"{where}: says {samples} samples, its shards {manifest.samples}")
        return manifest


def load_manifest(store: Store) -> Manifest:
    """The manifest of the dataset at `store`.

    Raises FileNotFoundError when there is none, saying what may be the case, and ValueError when it
    is not a manifest.
    """
    where = f"{store.location}/{MANIFEST}"
    try:
        text = store.read(MANIFEST)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no dataset at {store.location}: {MANIFEST} is missing "
            "(an ingest writes it last; run the same ingest again to finish it)"
        ) from None
    return Manifest.from_json(text, where=where)
