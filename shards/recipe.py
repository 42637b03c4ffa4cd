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
Reads = Literal["video", "strip", "archive", "gif", "chair"]
Fit = Literal["crop", "squash", "pad"]
Part = Literal["train", "test"]

ALGORITHM = 2
"""Raised whenever the same recipe would give other bytes: finished datasets keep their number."""
_LATER = frozenset(("split", "channels", "fit", "clips", "actions"))
CHAIR_FRAMES = 16

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
class WithinSplit:
    """Only one of two parts of every source: both show all of them.

    of: "frames", the first of a video or the last `test_share` of them (see `shards.windows`), or
    "clips", so many of those that a source has, drawn by its name (see `shards.chairs`).
    """

    part: Part
    of: Literal["frames", "clips"]
    test_share: float

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ValueError(f"part={self.part!r}: choose one of {', '.join(get_args(Part))}")
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share={self.test_share}: must be between 0 and 1")


Split = ListedSplit | DrawnSplit | WithinSplit


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How sources become shards.

    reads: what a source is: see `shards.video`, `shards.strips`, `shards.tgif`, `shards.chairs`.
    frames, size_px, fps: a clip is `frames` pictures of size_px x size_px at `fps`.
    channels: 3, or 1 for grey. fit: how a picture of another shape becomes a square: its middle,
    all of it out of shape, or all of it with black edges; other than "crop" is as filmed.
    clips: so many of a source, beginning where its name says (see `shards.windows`); None for
    those that follow one another. actions: of KTH, those that are kept; None for all.
    least_frames: of a strip or video; shorter than a clip, its last frame is repeated.
    stabilizer: see `shards.stabilize`; strips are taken as they are. encoding: the clip member's
    extension. scene: which clips are kept; split: what is taken of the sources; None for all.
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
    split: Split | None = None
    channels: int = 3
    fit: Fit = "crop"
    clips: int | None = None
    actions: tuple[str, ...] | None = None
    duplicate_bits: int | None = None
    batch_sources: int = 16
    group_batches: int = 4096
    shard_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        choices = (("stabilizer", Backend), ("encoding", Encoding), ("reads", Reads), ("fit", Fit))
        for field, valid in choices:
            value = getattr(self, field)
            if value not in get_args(valid):
                raise ValueError(f"{field}={value!r}: choose one of {', '.join(get_args(valid))}")
        counted = ("frames", "size_px", "fps", "batch_sources", "group_batches", "shard_bytes")
        for field in (*counted, *(() if self.clips is None else ("clips",))):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)}: must be at least 1")
        if self.duplicate_bits is not None and not 0 <= self.duplicate_bits <= 7:
            raise ValueError(f"duplicate_bits={self.duplicate_bits}: must be between 0 and 7")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality={self.jpeg_quality}: must be between 1 and 100")
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels}: must be 1 or 3")
        self._check_fit()
        self._check_split()

    def _check_fit(self) -> None:
        if self.fit != "crop" and self.reads in ("video", "gif") and self.stabilizer != "none":
            raise ValueError(
                f"fit={self.fit!r}: what is held still is cropped; --stabilizer none or --fit crop"
            )
        if self.clips is not None and self.reads not in ("video", "strip"):
            raise ValueError(f"clips={self.clips}: recipe {self.name!r} has no choice of clips")
        if self.actions is not None and self.name != "kth":
            raise ValueError(f"--actions is of recipe 'kth', and this is {self.name!r}")
        if self.reads == "chair" and self.frames != CHAIR_FRAMES:
            raise ValueError(f"frames={self.frames}: a chair's sequences have {CHAIR_FRAMES}")

    def _check_split(self) -> None:
        split = self.split
        if self.name == "ucf101" and isinstance(split, DrawnSplit | WithinSplit):
            raise ValueError(
                "recipe 'ucf101' has official lists, which keep the clips of one film together: "
                "--split trainlist01.txt, not --part"
            )
        if self.name != "ucf101" and isinstance(split, ListedSplit):
            raise ValueError(
                f"--split is of recipe 'ucf101'; recipe {self.name!r} takes --part train or test"
            )
        if isinstance(split, WithinSplit):
            able: tuple[Reads, ...] = ("video", "strip") if split.of == "frames" else ("chair",)
            if self.reads not in able:
                raise ValueError(
                    f"--part-of {split.of}: recipe {self.name!r} reads {self.reads}s, "
                    f"and this is for {' and '.join(f'{each}s' for each in able)}"
                )

    @property
    def detail(self) -> str:
        """How a clip is encoded, for people."""
        if self.encoding == "jpg":
            colours = "4:4:4" if self.channels == 3 else "grey"
            return f"vertical strip, q{self.jpeg_quality} {colours}"
        return "raw uint8, T H W C"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the algorithm's number; no place where a file lies."""
        values = {**dataclasses.asdict(self), "algorithm": ALGORITHM}
        if self.scene:
            kept = ("scene", "least", "digest")
            values["scene"] = {name: values["scene"][name] for name in kept}
        for field in dataclasses.fields(self):
            # So that what was made before there was such a choice keeps its hash.
            if field.name in _LATER and values[field.name] == field.default:
                del values[field.name]
        if isinstance(self.split, ListedSplit):
            del values["split"]["location"]
        return values


RECIPES = {
    "flickr": Recipe(name="flickr"),
    "flickr_filtered": Recipe(name="flickr_filtered", duplicate_bits=6),
    "strips": Recipe(name="strips", reads="strip", batch_sources=256),
    "ucf101": Recipe(name="ucf101", stabilizer="none", least_frames=16),
    "kth": Recipe(
        name="kth",
        frames=10,
        least_frames=10,
        size_px=120,
        channels=1,
        fit="squash",
        stabilizer="none",
    ),
    "tgif": Recipe(
        name="tgif",
        reads="gif",
        frames=10,
        least_frames=10,
        size_px=128,
        fps=10,  # for showing them: what is picked has no rate
        channels=1,
        fit="pad",
        stabilizer="none",
        batch_sources=64,
    ),
    "weizmann": Recipe(
        name="weizmann", frames=10, least_frames=10, fit="squash", stabilizer="none", clips=20
    ),
    "chairs": Recipe(
        name="chairs",
        reads="chair",
        frames=CHAIR_FRAMES,
        least_frames=CHAIR_FRAMES,
        fps=10,  # for showing them
        stabilizer="none",
    ),
    "tinyvideo": Recipe(name="tinyvideo", reads="archive", least_frames=16),
}


def find_recipe(name: str) -> Recipe:
    """The registered recipe. Raises ValueError naming the valid ones and the nearest match."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"recipe {name!r} is not known{hint} (known: {', '.join(sorted(RECIPES))})")
