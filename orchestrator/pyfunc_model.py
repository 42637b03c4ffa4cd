"""The code of a registered model, run by `mlflow.pyfunc.load_model` where nothing else of the
project is installed: it imports `models/`, and `shards.still` for pictures, which travel with it,
and nothing of orchestrator."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from torch import Tensor

_PART = 8  # clips at a time: what a laptop's memory holds at full width


class VideoModel(PythonModel):  # type: ignore[misc]
    """One result a row, a function of that row alone; the kinds are in `orchestrator.registry`."""

    def load_context(self, context: Any) -> None:
        """Builds the learner of `config` and loads its `weights`."""
        config = json.loads(Path(context.artifacts["config"]).read_text())
        kind = getattr(importlib.import_module(config["module"]), config["class"])
        self._kind = config["kind"]
        self._words = config["words"]
        self._config = kind(**config["fields"])
        self._learner = self._config.build().eval()
        weights = torch.load(context.artifacts["weights"], map_location="cpu", weights_only=True)
        self._learner.load_state_dict(weights)

    # MLflow would take type hints here for the signature, and they cannot say it.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ARG002
        """Rows of `seed` or `image`, or clips, to clips or probabilities."""
        with torch.no_grad():
            match self._kind:
                case "classifier" | "reader":
                    parts = _parts(np.asarray(model_input))
                    return np.concatenate([self._probabilities(part) for part in parts])
                case "future":
                    rows = list(model_input["image"])
                    return np.concatenate([self._futures(part) for part in _parts(rows)])
                case "drawing" if self._learner.conditions:
                    rows = list(zip(model_input["seed"], model_input["caption"], strict=True))
                    return np.concatenate([self._drawn(part) for part in _parts(rows)])
                case _:
                    seeds = [int(seed) for seed in model_input["seed"]]
                    return np.concatenate([self._clips(part) for part in _parts(seeds)])

    def _probabilities(self, clips: Any) -> Any:
        return self._learner.predict(_to_video(clips)).float().numpy()

    def _clips(self, seeds: list[int]) -> Any:
        return _to_clips(self._learner.sample(self._noise(seeds))["sample"])

    def _drawn(self, rows: list[tuple[Any, Any]]) -> Any:
        from models.captions import tokens
        from models.skip_thoughts import from_environment

        noise = self._noise([int(seed) for seed, _ in rows])
        captions = [str(caption) for _, caption in rows]
        if "sentence_bd" in self._learner.conditions:
            says = {"sentence_bd": from_environment(self._learner.language).encode(captions)}
        else:
            says = {"caption_bl": tokens(captions, self._words, self._learner.words)}
        return _to_clips(self._learner.sample(noise, **says)["sample"])

    def _futures(self, images: list[Any]) -> Any:
        size_px = self._config.clip_shape[1]
        begun = np.stack([_frame(image, size_px, n)[None] for n, image in enumerate(images)])
        noise = self._noise([0] * len(images))
        return _to_clips(self._learner.sample(noise, _to_video(begun))["sample"])

    def _noise(self, seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.cat([self._learner.noise(1, generator) for generator in generators])


def _parts(rows: Any) -> list[Any]:
    return [rows[start : start + _PART] for start in range(0, len(rows), _PART)]


def _frame(image: Any, size: int, row: int) -> Any:
    """uint8 (size, size, 3) of a picture file's bytes, their base64, or pixels."""
    import io

    from PIL import Image

    from shards.still import read_still

    if isinstance(image, str):
        image = base64.b64decode(image)
    elif not isinstance(image, bytes):
        file = io.BytesIO()
        Image.fromarray(np.asarray(image, np.uint8)).save(file, "PNG")
        image = file.getvalue()
    return read_still(image, size, where=f"image {row}")


def _to_video(clips: Any) -> Tensor:
    """uint8 (B, T, H, W, C) to float (B, C, T, H, W) in [-1, 1]."""
    scaled = torch.from_numpy(np.array(clips)).float() / 127.5 - 1
    return scaled.permute(0, 4, 1, 2, 3)


def _to_clips(video_bcthw: Tensor) -> Any:
    """Float (B, C, T, H, W) in [-1, 1] to uint8 (B, T, H, W, C)."""
    levels = ((video_bcthw + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 4, 1).numpy())


set_model(VideoModel())
