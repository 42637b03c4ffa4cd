"""The code of a registered model, run by `mlflow.pyfunc.load_model` where nothing else of the
project is installed: it imports `models/`, which travels with it, and nothing of orchestrator."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class VideoGenerator(PythonModel):  # type: ignore[misc]
    """Generates one clip a row, a pure function of the row's `seed`."""

    def load_context(self, context: Any) -> None:
        """Builds the learner of `config` and loads its `weights`."""
        config = json.loads(Path(context.artifacts["config"]).read_text())
        kind = getattr(importlib.import_module(config["module"]), config["class"])
        self._learner = kind(**config["fields"]).build().eval()
        weights = torch.load(context.artifacts["weights"], map_location="cpu", weights_only=True)
        self._learner.load_state_dict(weights)

    # MLflow would take type hints here for the signature, and they cannot say it.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ARG002
        """Rows with `seed` to uint8 clips (B, T, H, W, C)."""
        generators = [torch.Generator().manual_seed(int(s)) for s in model_input["seed"]]
        noise = torch.cat([self._learner.noise(1, generator) for generator in generators])
        video_bcthw = self._learner.sample(noise)["sample"]
        levels = ((video_bcthw + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(levels.permute(0, 2, 3, 4, 1).numpy())


set_model(VideoGenerator())
