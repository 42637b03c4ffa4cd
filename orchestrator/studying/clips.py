"""From runs and a dataset to a study's folder: what is compared, and its clips as blind files.

Every clip is a lossless PNG strip of its frames without metadata, under a random name, written in
random order: neither address, file nor date tells which source made it.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.learner import Learner
from orchestrator.clips import some_clips
from orchestrator.pictures import Pixels, strip, to_pixels
from orchestrator.site import Site
from orchestrator.studying.answers import DATABASE, Answers, clip_file
from orchestrator.studying.plan import (
    CHECK,
    NOISE,
    REAL,
    REFERENCE,
    STILL_OF,
    Mode,
    Source,
    Study,
    compared,
)
from orchestrator.trained import Trained
from shards.dataset import Dataset, open_dataset

REFERENCES = 4  # real clips shown before a rating
CHECKS = 16  # clips that the attention checks take turns with
_FPS = 25.0  # of generated clips where no dataset is at hand to say


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a study is made of: trained runs, whether their stills compete, and real clips.

    dataset: gives the real clips of the attention checks, and competes if `real`.
    """

    runs: tuple[Trained, ...]
    dataset: Dataset | None
    real: bool
    stills: bool

    def __post_init__(self) -> None:
        names = [run.name for run in self.runs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice}: given twice; a study compares different runs")
        for run in self.runs:
            if run.kind == "classifier":
                raise ValueError(f"{run.name}: a classifier, which makes no clips")
        shapes = {run.name: tuple(run.model.clip_shape[:3]) for run in self.runs}
        if self.dataset is not None:
            clip = self.dataset.manifest.clip
            shapes[self.dataset.store.location] = (clip.frames, clip.height, clip.width)
        if len(set(shapes.values())) > 1:
            said = ", ".join(f"{name} {t}x{h}x{w}" for name, (t, h, w) in shapes.items())
            raise ValueError(f"clips that differ in shape would not be blind (TxHxW): {said}")

    def study(
        self, mode: Mode, *, trials: int | None, checks: int | None, clips: int, seed: int
    ) -> Study:
        """The study's value. Raises ValueError where there is nothing to compare, or no real clips
        for the checks.

        trials: None for 40 pairs, or 10 clips of every source. checks: None for one in 8 trials.
        """
        sources = [Source(label=run.name, version=weights_sha256(run.learner)) for run in self.runs]
        if self.real:
            assert self.dataset is not None
            sources.append(Source(label=REAL, version=self.dataset.version))
        if self.stills:
            sources += [Source(label=STILL_OF + s.label, version=s.version) for s in sources]
            sources = [s for s in sources if s.label != STILL_OF + REAL]
        rows = compared(len(self.runs), real=self.real, stills=self.stills)
        if mode == "pairs" and not rows:
            raise ValueError("one run alone has nothing to meet: give another RUN, or --real")
        if trials is None:
            trials = 40 if mode == "pairs" else 10 * len(sources)
        checks = max(1, trials // 8) if checks is None else checks
        if checks and self.dataset is None:
            raise ValueError(
                "attention checks show real clips, and the first run's dataset is not at "
                "SHARDS_ROOT: give --real DATASET, or --checks 0"
            )
        return Study(
            mode=mode,
            sources=tuple(sources),
            comparisons=rows if mode == "pairs" else (),
            trials=trials,
            checks=checks,
            clips=clips,
            fps=_FPS if self.dataset is None else self.dataset.manifest.clip.fps,
            seed=seed,
        )


def prepare(root: Path, study: Study, material: Material, site: Site) -> Path:
    """The study's folder below `root`, made if it is not there: whole, or not at all.

    Raises ValueError when a source cannot give its clips.
    """
    folder = root / study.id
    if (folder / DATABASE).is_file():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f".{study.id}-{secrets.token_hex(4)}"
    partial.mkdir(mode=0o700)  # it holds the token
    try:
        _write(partial, study, _clips_by_source(study, material, site))
        partial.rename(folder)
    except OSError:
        if not (folder / DATABASE).is_file():  # else another was quicker, with the same study
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write(folder: Path, study: Study, pixels: dict[str, Pixels]) -> None:
    rows = [(source, clip) for source, clips in pixels.items() for clip in clips]
    random.SystemRandom().shuffle(rows)
    (folder / "clips").mkdir()
    source_of = {}
    for source, clip in rows:
        name = secrets.token_hex(16)
        clip_file(folder, name).write_bytes(strip(clip))
        source_of[name] = source
    Answers.create(folder, study, source_of)


def _clips_by_source(study: Study, material: Material, site: Site) -> dict[str, Pixels]:
    """uint8 (N, T, H, W, 3) by source's label, and by `check`, `noise` and `reference`."""
    pixels = _real(study, material)
    for run in material.runs:
        pixels[run.name] = _generated(run, run.name, study, site)
        still = STILL_OF + run.name
        if material.stills:
            clips = _generated(run, still, study, site)
            middle = clips.shape[1] // 2
            pixels[still] = np.repeat(clips[:, middle : middle + 1], clips.shape[1], axis=1)
    return pixels


def _generated(run: Trained, stream: str, study: Study, site: Site) -> Pixels:
    digest = hashlib.sha256(f"{study.seed}/{stream}".encode()).digest()
    first = int.from_bytes(digest[:6], "little")
    seeds = range(first, first + study.clips)
    if run.kind != "future":
        return run.sample(seeds)["sample"]
    try:
        dataset = open_dataset(site.dataset(run.record["data"]["name"]))
    except (OSError, ValueError) as error:
        raise ValueError(f"{run.name} goes on from real clips: {error}") from None
    most = 2 * study.clips + CHECKS + REFERENCES  # those that compete come first
    given = some_clips(dataset, most).video_nthwc[-study.clips :]
    return run.sample(seeds[: len(given)], given)["sample"]


def _real(study: Study, material: Material) -> dict[str, Pixels]:
    if material.dataset is None:
        return {}
    counts = {
        CHECK: min(study.checks, CHECKS),
        REFERENCE: REFERENCES if study.mode == "rating" and material.real else 0,
        REAL: study.clips if material.real else 0,
    }
    wanted = sum(counts.values())
    if wanted == 0:
        return {}
    clips = to_pixels(some_clips(material.dataset, wanted).video_nthwc)
    least = wanted - max(0, counts[REAL] - 1)
    if len(clips) < least:
        raise ValueError(
            f"the dataset at {material.dataset.store.location} has {len(clips)} clips, and this "
            f"study needs at least {least}"
        )
    ends = np.cumsum(list(counts.values()))
    parts = dict(zip(counts, np.split(clips, ends[:-1]), strict=True))
    if counts[CHECK]:
        parts[NOISE] = np.stack([_shuffled(clip, study.seed) for clip in parts[CHECK]])
    return {source: part for source, part in parts.items() if len(part)}


def _shuffled(clip: Pixels, seed: int) -> Pixels:
    """The pixels of a clip at random places and times: its colours, and nothing else of it."""
    shuffled: Pixels = np.random.default_rng(seed).permutation(clip.reshape(-1, 3))
    return shuffled.reshape(clip.shape)


def weights_sha256(learner: Learner) -> str:
    """The sha256 of all parameters and buffers with their names and shapes, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(learner.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
