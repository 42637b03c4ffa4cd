"""The finished model as MLflow keeps it: a pyfunc that generates, registered with a signature.

`predict` takes one row a clip, with the column `seed` (long), and gives uint8 clips
(B, T, H, W, C). The code travels with it (`models/`), so it loads where the project is not
installed; it needs torch, numpy and mlflow.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

import models
from orchestrator.config import Experiment, plain

LOADER = Path(__file__).with_name("pyfunc_model.py")


def register(mlflow: Any, run_id: str, experiment: Experiment, learner: dict[str, Any]) -> str:
    """Logs the model to the run and registers it as `<experiment>`; returns `name/version`.

    learner: the state dict of the learner that `experiment.model` builds.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory() as folder:
        weights, config = Path(folder, "learner.pt"), Path(folder, "config.json")
        torch.save(learner, weights)
        kind = type(experiment.model)
        config.write_text(
            json.dumps(
                {
                    "module": kind.__module__,
                    "class": kind.__name__,
                    "fields": plain(experiment.model),
                }
            )
        )
        import numpy as np
        import pandas as pd

        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer", UserWarning)
        example = pd.DataFrame({"seed": np.arange(2, dtype=np.int64)})
        clips = np.zeros((2, *experiment.model.clip_shape), np.uint8)
        signature: ModelSignature = infer_signature(example, clips)
        target = Path(folder, "model")
        save_model(
            target,
            python_model=str(LOADER),
            artifacts={"weights": str(weights), "config": str(config)},
            code_paths=[str(Path(next(iter(models.__path__))))],
            signature=signature,
            input_example=example,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy", "pandas"],
        )
        mlflow.log_artifacts(run_id, str(target), "model")
    try:
        mlflow.create_registered_model(experiment.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{mlflow.get_run(run_id).info.artifact_uri}/model"
    version = mlflow.create_model_version(experiment.name, source, run_id=run_id)
    return f"{experiment.name}/{version.version}"
