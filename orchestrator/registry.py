"""The finished model as MLflow keeps it: a pyfunc of its kind, registered with a signature.

| kind | a row is | and gives |
| --- | --- | --- |
| generator, autoencoder | `seed`, a long | a uint8 clip (T, H, W, C) |
| future | `image`: a file's bytes, their base64, or uint8 pixels (H, W, 3) | the same |
| drawing | `seed`, and `caption` for a model of captions | the same |
| classifier, reader | a uint8 clip (T, H, W, C), in one array | probabilities, float32 |

The code travels with it (`models/`, and `shards/` for what reads pictures), so it loads where the
project is not installed; it needs torch, numpy and mlflow, and Pillow for pictures.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

import models
import shards
from models.learner import Kind, Learner
from orchestrator import cards
from orchestrator.config import Experiment, plain
from orchestrator.mlflow_runs import RUN_TAG, asking, client_of_existing, why

LOADER = Path(__file__).with_name("pyfunc_model.py")
SCHEME = "models:/"
BEST = "best"  # the alias of the model that won a sweep
NAMES = ("classes", "words", "attributes")


def register(
    mlflow: Any,
    run_id: str,
    experiment: Experiment,
    learner: dict[str, Any],
    names: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Logs the model to the run and registers it as `<experiment>`; returns `name/version`.

    learner: the state dict of the learner that `experiment.model` builds, after the last step.
    names: in order, by their place in NAMES: "classes", what a classifier's probabilities are of,
    "words", which a model of captions knows, and "attributes", `name=value`, which one is told.
    """
    from mlflow.exceptions import MlflowException

    run = mlflow.get_run(run_id)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "model")
        name = run.data.tags.get(RUN_TAG, run_id)
        save(target, experiment, learner, run=name, names=names)
        mlflow.log_artifacts(run_id, str(target), "model")
    try:
        mlflow.create_registered_model(experiment.name, description=cards.of_model(experiment))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = mlflow.create_model_version(
        experiment.name,
        f"{run.info.artifact_uri}/model",
        run_id=run_id,
        description=cards.of_version(experiment, run_id, name, run.data.metrics, names),
        await_creation_for=None,  # nothing follows that would need it
    )
    return f"{experiment.name}/{version.version}"


def mark_best(uri: str, run_id: str) -> str:
    """Gives the model that was registered of a run the alias `best`, which another loses; its
    `name/version`.

    Raises ValueError for a run without a registered model, OSError when MLflow does not answer.
    """
    with asking(uri) as mlflow:
        found = [] if mlflow is None else mlflow.search_model_versions(f"run_id = '{run_id}'")
        if mlflow is None or not found:
            raise ValueError(f"{run_id}: MLflow at {uri} has no registered model of this run")
        newest = max(found, key=lambda each: int(each.version))
        mlflow.set_registered_model_alias(newest.name, BEST, newest.version)
        return f"{newest.name}/{newest.version}"


def save(
    target: Path,
    experiment: Experiment,
    learner: dict[str, Any],
    *,
    run: str,
    names: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Writes the model as the folder `target`, which `mlflow.pyfunc.load_model` takes.

    run: the name of the run whose model it is; it stays in the folder, as the experiment does.
    """
    from mlflow.pyfunc import save_model

    kind = _on_meta(experiment).kind
    about = {
        "module": type(experiment.model).__module__,
        "class": type(experiment.model).__name__,
        "fields": plain(experiment.model),
        "kind": kind,
        "run": run,
        "step": experiment.budget.steps,
        **{name: list(names.get(name, ())) for name in NAMES},
        "experiment": plain(experiment),
    }
    packages = [models, shards] if kind == "future" else [models]
    signature, example = _signature(kind, experiment, names)
    needs = [f"torch=={torch.__version__.split('+')[0]}", "numpy", "pandas"]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer", UserWarning)
        weights, config = Path(folder, "learner.pt"), Path(folder, "config.json")
        torch.save(learner, weights)
        config.write_text(json.dumps(about, indent=1))
        save_model(
            target,
            python_model=str(LOADER),
            artifacts={"weights": str(weights), "config": str(config)},
            code_paths=[next(iter(package.__path__)) for package in packages],
            signature=signature,
            metadata={name: list(values) for name, values in names.items() if values},
            input_example=example,
            pip_requirements=[*needs, "pillow"] if kind == "future" else needs,
        )


def _on_meta(experiment: Experiment) -> Learner:
    with torch.device("meta"):
        learner: Learner = experiment.model.build()
    return learner


def _signature(
    kind: Kind, experiment: Experiment, names: Mapping[str, Sequence[str]]
) -> tuple[Any, Any]:
    """(the signature, an input example) of a kind's model."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema, TensorSpec
    from PIL import Image

    shape = experiment.model.clip_shape
    clips = TensorSpec(np.dtype(np.uint8), (-1, *shape))
    inputs: Any = ColSpec(DataType.long, "seed")
    example: Any = pd.DataFrame({"seed": np.arange(2, dtype=np.int64)})
    outputs = clips
    match kind:
        case "future":
            file = io.BytesIO()
            Image.linear_gradient("L").resize(shape[1:3]).save(file, "PNG")
            inputs = ColSpec(AnyType(), "image")
            example = pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})
        case "classifier" | "reader":
            inputs, example = clips, np.zeros((1, *shape), np.uint8)
            outputs = TensorSpec(np.dtype(np.float32), (-1, _on_meta(experiment).classes))
    columns = [inputs]
    if kind == "drawing" and _on_meta(experiment).conditions:
        columns.append(ColSpec(DataType.string, "caption"))
        example["caption"] = " ".join(names.get("words", ())[:2]) or "a caption"
    return ModelSignature(inputs=Schema(columns), outputs=Schema([outputs])), example


def versions(uri: str, name: str) -> list[int]:
    """The versions of the registered model `name`, ascending; empty when there is none.

    Raises OSError when MLflow does not answer.
    """
    mlflow, failure = client_of_existing(uri), _failure()
    if mlflow is None:
        return []
    try:
        found = mlflow.search_model_versions(f"name = '{name}'", max_results=1000)
    except failure as error:
        raise _silent(uri, error) from None
    return sorted(int(each.version) for each in found)


def download(uri: str, text: str, folder: Path) -> Path:
    """The registered model `models:/NAME[/VERSION]` as a folder below `folder`; by default the
    newest. Raises ValueError naming what there is, OSError when MLflow does not answer."""
    match = re.fullmatch(rf"{SCHEME}([^/@]+)(?:/(\d+)|@([\w-]+))?", text)
    if match is None:
        raise ValueError(
            f"{text}: a registered model is {SCHEME}NAME, {SCHEME}NAME/VERSION or "
            f"{SCHEME}NAME@ALIAS"
        )
    name, version, alias = match.groups()
    there = versions(uri, name)
    if not there:
        raise ValueError(f"{text}: no model {name!r} is registered in MLflow at {uri}")
    if alias is not None:
        with asking(uri) as client:
            aliases = client.get_registered_model(name).aliases  # type: ignore[union-attr]
        if alias not in aliases:
            known = ", ".join(aliases) or "none"
            raise ValueError(f"{text}: {name} has no alias {alias!r}; its aliases: {known}")
        version = str(aliases[alias])
    if version is not None and int(version) not in there:
        raise ValueError(f"{text}: {name} has the versions {', '.join(map(str, there))}")
    mlflow, failure = client_of_existing(uri), _failure()
    assert mlflow is not None
    try:
        from mlflow.artifacts import download_artifacts

        source = mlflow.get_model_version_download_uri(name, version or str(there[-1]))
        found = download_artifacts(source, dst_path=str(folder), tracking_uri=uri)
    except failure as error:
        raise _silent(uri, error) from None
    return Path(found)


def _failure() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    failure: type[Exception] = MlflowException
    return failure


def _silent(uri: str, error: Exception) -> OSError:
    return OSError(f"MLflow at {uri} does not give the model: {why(error)}")
