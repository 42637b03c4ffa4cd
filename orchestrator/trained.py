"""A trained model, as the commands that use one are asked for it: its learner and its record.

RUN is a run's name, an MLflow run id, the path of a run or of one of its checkpoints, or a
registered model: `models:/NAME/VERSION`, `models:/NAME`, NAME, or its folder. Nothing of the
training data is needed.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.captions import tokens
from models.learner import Kind, Learner
from models.skip_thoughts import from_environment
from orchestrator import registry
from orchestrator.archive import locate
from orchestrator.checkpoint import Checkpoint, Checkpoints
from orchestrator.conditions import Array
from orchestrator.config import ModelConfig
from orchestrator.experiments import find
from orchestrator.loop import to_video
from orchestrator.pictures import Pixels, to_pixels
from orchestrator.site import Site
from shards.storage import is_remote, open_store

_PART = 8  # clips at a time: what a laptop's memory holds at full width
_CHECKPOINT = re.compile(r"(.+)/checkpoints/(\d+)(?:/(?:state\.pt|manifest\.json)?)?")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model after `step` steps.

    name: its run's. learner: on the CPU, in eval mode. record: the resolved experiment, as
    `orchestrator.config.plain` writes it. data_version: of the dataset it was trained on, None if
    unknown. classes: the names of what a classifier tells apart, in order; none if unknown. words:
    those that a model of captions knows, in order. attributes: those that a model is told, each
    `name=value`, in order; none if unknown.
    location: its run's folder or `s3://` URL, None where only the model is known.
    """

    name: str
    step: int
    model: ModelConfig
    learner: Learner
    record: dict[str, Any]
    data_version: str | None
    classes: list[str]
    words: list[str]
    attributes: list[str]
    location: str | None

    @property
    def kind(self) -> Kind:
        """What the model is for."""
        return self.learner.kind

    def sample(
        self,
        seeds: Sequence[int],
        given: Pixels | None = None,
        captions: Sequence[str] | None = None,
        attributes: Array | None = None,
    ) -> dict[str, Pixels]:
        """What the model makes, a clip a seed, uint8 (N, T, H, W, 3), by name: `sample`, and parts.

        A clip is a function of its seed, as the registered model makes it. given: as many real
        clips, or frames (T = 1), uint8 (N, T, H, W, C), for models that begin from them. captions:
        as many, for models that draw what they say. attributes: int64 (N, T, A), for models that
        are told them, -1 where they are left free; None leaves all free.
        """
        parts: list[dict[str, Pixels]] = []
        for start in range(0, len(seeds), _PART):
            chosen = slice(start, start + _PART)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[chosen]]
            noise = torch.cat([self.learner.noise(1, generator) for generator in generators])
            clips = None if given is None else to_video(given[chosen].copy(), self.device)
            says = self.conditions(None if captions is None else captions[chosen])
            if attributes is not None:
                says["attributes_ba"] = torch.from_numpy(attributes[chosen]).to(self.device)
            made = self.learner.sample(noise.to(self.device), clips, **says)
            parts.append({name: to_pixels(video) for name, video in made.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def conditions(self, captions: Sequence[str] | None) -> dict[str, Tensor]:
        """Captions as the learner takes them; nothing for a learner without.

        Raises ValueError for words that it does not know, and where it needs captions.
        """
        if not self.captioned:
            return {}
        if captions is None:
            raise ValueError(f"{self.name} draws what a caption says: give --caption TEXT")
        if "sentence_bd" in self.learner.conditions:
            sentence_bd = from_environment(self.learner.language).encode(captions)
            return {"sentence_bd": sentence_bd.to(self.device)}
        caption_bl = tokens(captions, self.words, self.learner.words)
        return {"caption_bl": caption_bl.to(self.device)}

    @property
    def captioned(self) -> bool:
        """Whether it makes what captions say."""
        return bool({"caption_bl", "sentence_bd"} & set(self.learner.conditions))

    @property
    def device(self) -> torch.device:
        """Where the learner is."""
        return next(self.learner.parameters()).device


def find_trained(text: str, site: Site) -> Trained:
    """The model that a user means by `text`, see above; of a run the newest whole checkpoint.

    Raises ValueError naming what is wrong and the nearest match, OSError when a store or MLflow
    does not answer.
    """
    if text.startswith(registry.SCHEME):
        return _registered(text, site)
    path = text if is_remote(text) else str(Path(text).expanduser().absolute())
    if at := _CHECKPOINT.fullmatch(path):
        return _of_step(at[1], int(at[2]), text)
    if not is_remote(text) and Path(path, "MLmodel").is_file():
        return _from_folder(Path(path), text, site)
    try:
        run = locate(text, site)
    except ValueError:
        if "/" not in text and registry.versions(site.mlflow_uri, text):
            return _registered(registry.SCHEME + text, site)
        raise
    return _newest(run.name, run.location)


def _newest(name: str, location: str) -> Trained:
    checkpoints = Checkpoints(open_store(location), keep=2)
    steps, reasons = checkpoints.steps(), []
    for step in reversed(steps):
        try:
            return _of(checkpoints.load(step), location)
        except (ValueError, OSError) as error:
            reasons.append(f"of step {step}: {error}")
    if not steps:
        raise ValueError(f"{name}: there is no checkpoint at {location} yet; train it first")
    raise ValueError(f"{name}: none of its {len(steps)} checkpoints can be used; {reasons[0]}")


def _of_step(location: str, step: int, text: str) -> Trained:
    checkpoints = Checkpoints(open_store(location), keep=2)
    try:
        return _of(checkpoints.load(step), location)
    except FileNotFoundError:
        there = ", ".join(f"{each:08d}" for each in checkpoints.steps()) or "none"
        raise ValueError(f"{text}: no such checkpoint; at {location} there are: {there}") from None
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def _of(checkpoint: Checkpoint, location: str) -> Trained:
    """Raises ValueError where the weights are not those of the experiment it names."""
    facts = checkpoint.facts
    record = facts["experiment"]
    kind = type(find(record["name"]).model)
    model, learner = _built(kind, record["model"], checkpoint.state["learner"])
    return Trained(
        name=facts["run"],
        step=checkpoint.step,
        model=model,
        learner=learner,
        record=record,
        data_version=facts["reader"]["dataset_version"],
        classes=facts.get("classes", []),
        words=facts.get("words", []),
        attributes=facts.get("attributes", []),
        location=location,
    )


def _registered(text: str, site: Site) -> Trained:
    with tempfile.TemporaryDirectory() as folder:
        found = registry.download(site.mlflow_uri, text, Path(folder))
        return _from_folder(found, text, site)


def _from_folder(folder: Path, text: str, site: Site) -> Trained:
    """Of a registered model's folder."""
    try:
        about = json.loads((folder / "artifacts/config.json").read_text())
        kind = getattr(importlib.import_module(about["module"]), about["class"])
        record, run = about["experiment"], about["run"]
        weights = torch.load(folder / "artifacts/learner.pt", map_location="cpu", weights_only=True)
    except (OSError, KeyError, ImportError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{text}: not a model that this version registered: {error}") from None
    try:
        model, learner = _built(kind, about["fields"], weights)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None
    location = site.run(run)
    there = bool(Checkpoints(open_store(location), keep=2).steps())
    return Trained(
        name=run,
        step=about["step"],
        model=model,
        learner=learner,
        record=record,
        data_version=None,
        classes=about.get("classes", []),
        words=about.get("words", []),
        attributes=about.get("attributes", []),
        location=location if there else None,
    )


def _built(
    kind: type[ModelConfig], fields: dict[str, Any], weights: dict[str, Tensor]
) -> tuple[ModelConfig, Learner]:
    try:
        model = kind(**fields)
    except TypeError as error:
        raise ValueError(f"a {kind.__name__} of another version: {error}") from None
    learner: Learner = model.build()
    mine, theirs = (
        {name: tuple(tensor.shape) for name, tensor in state.items()}
        for state in (learner.state_dict(), weights)
    )
    if wrong := sorted({name for name, _ in mine.items() ^ theirs.items()}):
        raise ValueError(
            f"its weights are of another model than {kind.__name__}{fields}: {wrong[0]} is "
            f"{theirs.get(wrong[0], 'missing')}, not {mine.get(wrong[0], 'there')}"
        )
    learner.load_state_dict(weights)
    return model, learner.eval()
