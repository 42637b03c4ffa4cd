"""What an ingest makes of video: every choice that changes the bytes of a dataset, as one value.

A recipe is frozen; the command line replaces single fields of a registered one. Its hash is a part
of the plan's, so another recipe never resumes into this one's output.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal, get_args

Backend = Literal["sift", "sift320", "lk", "none"]
Encoding = Literal["jpg", "u8"]
Reads = Literal["video", "strip", "archive"]
Part = Literal["train", "test"]

ALGORITHM = 2
"""Raised whenever the same recipe would give other bytes: finished datasets keep their number."""


SCENES = ("beach", "golf_course", "hospital_room", "train_station")  # the paper's four


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneFilter:
    """Only clips that show `scene` with a probability of at least `least` are kept.

    model, labels: locations, see `shards.scene`. digest: sha256 of the two files, in hex.
    """

    scene: str
    least: float
    model: str
    labels: str
    digest: str

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise ValueError(f"scene_score={self.least}: must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSplit:
    """Only what one of UCF-101's official lists names, see `shards.ucf101`.

    name, location: the list's. digest: sha256 of it and of the classInd.txt beside it, in hex.
    """

    name: str
    location: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSplit:
    """Only one of two parts that each class is cut into, see `shards.split`.

    test_share: of a class's sources, in the test part. together: so many sources that follow one
    another by name are never parted.
    """

    part: Part
    test_share: float = 0.33
    together: int = 1

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ValueError(f"part={self.part!r}: choose one of {', '.join(get_args(Part))}")
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share={self.test_share}: must be between 0 and 1")
        if self.together < 1:
            raise ValueError(f"together={self.together}: must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How sources become shards.

    reads: what a source is: see `shards.video` and `shards.strips`.
    frames, size_px, fps: a clip is `frames` pictures of size_px x size_px at `fps`.
    least_frames: of a strip or video; shorter than a clip, its last frame is repeated.
    stabilizer: see `shards.stabilize`; strips are taken as they are. encoding: the clip member's
    extension. scene: which clips are kept; split: which sources are taken; None for all.
    duplicate_bits: clips of other sources whose hashes differ in so many bits are copies and left
    out (see `shards.duplicates`); None keeps all.
    batch_sources: most sources cut by one task; group_batches: batches whose clips are mixed before
    they are dealt into shards of about `shard_bytes`.
    """

    name: str
    reads: Reads = "video"
    frames: int = 32
    least_frames: int = 32
    size_px: int = 64
    fps: int = 25
    stabilizer: Backend = "sift320"
    encoding: Encoding = "jpg"
    jpeg_quality: int = 95
    scene: SceneFilter | None = None
    split: ListedSplit | DrawnSplit | None = None
    duplicate_bits: int | None = None
    batch_sources: int = 16
    group_batches: int = 4096
    shard_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for field, valid in (("stabilizer", Backend), ("encoding", Encoding), ("reads", Reads)):
            value = getattr(self, field)
            if value not in get_args(valid):
                raise ValueError(f"{field}={value!r}: choose one of {', '.join(get_args(valid))}")
        for field in ("frames", "size_px", "fps", "batch_sources", "group_batches", "shard_bytes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)}: must be at least 1")
        if self.duplicate_bits is not None and not 0 <= self.duplicate_bits <= 7:
            raise ValueError(f"duplicate_bits={self.duplicate_bits}: must be between 0 and 7")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality={self.jpeg_quality}: must be between 1 and 100")
        if self.name == "ucf101" and isinstance(self.split, DrawnSplit):
            raise ValueError(
                "recipe 'ucf101' has official lists, which keep the clips of one film together: "
                "--split trainlist01.txt, not --part"
            )
        if self.name != "ucf101" and isinstance(self.split, ListedSplit):
            raise ValueError(
                f"--split is of recipe 'ucf101'; recipe {self.name!r} takes --part train or test"
            )

    @property
    def detail(self) -> str:
        """How a clip is encoded, for people."""
        if self.encoding == "jpg":
            return f"vertical strip, q{self.jpeg_quality} 4:4:4"
        return "raw uint8, T H W C"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the algorithm's number; no place where a file lies."""
        values = {**dataclasses.asdict(self), "algorithm": ALGORITHM}
        if self.scene:
            kept = ("scene", "least", "digest")
            values["scene"] = {name: values["scene"][name] for name in kept}
        if self.split is None:
            del values["split"]  # so that what was made before there were splits keeps its hash
        elif isinstance(self.split, ListedSplit):
            del values["split"]["location"]
        return values


RECIPES = {
    "flickr": Recipe(name="flickr"),
    "flickr_filtered": Recipe(name="flickr_filtered", duplicate_bits=6),
    "strips": Recipe(name="strips", reads="strip", batch_sources=256),
    "ucf101": Recipe(name="ucf101", stabilizer="none", least_frames=16),
    "tinyvideo": Recipe(name="tinyvideo", reads="archive", least_frames=16),
}


def find_recipe(name: str) -> Recipe:
    """The registered recipe. Raises ValueError naming the valid ones and the nearest match."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"recipe {name!r} is not known{hint} (known: {', '.join(sorted(RECIPES))})")
