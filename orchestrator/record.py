"""A run as MLflow alone remembers it: enough to make it again, and its curves to compare with."""

from __future__ import annotations

import difflib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.description import COMMAND_TAG, EXPERIMENT_FILE
from orchestrator.mlflow_runs import REPRODUCES_TAG, RUN_TAG, asking, find_run, names_by_id
from orchestrator.provenance import CODE_TAG, DEVICE_TAG, PACKAGES, diff_name, read_packages
from orchestrator.sameness import Curve

CURVES = "train/"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What MLflow says of a run.

    experiment: resolved, as `orchestrator.config.plain` writes it. data: the dataset's name,
    version and place then. codes: the commit (with `+dirty`) of every code that drove it, by the
    code's digest. diffs: those of them whose changes MLflow keeps. packages: {name: version}.
    workers, device: as they were last, None if unknown. reproduces: the run that it reproduces.
    """

    run_id: str
    name: str
    status: str
    experiment: dict[str, Any]
    data: tuple[str, str, str]
    codes: dict[str, str]
    diffs: frozenset[str]
    packages: dict[str, str]
    workers: int | None
    device: str | None
    command: str
    reproduces: str | None


def read_record(uri: str, text: str) -> Record:
    """The record of the run that a user means by `text`: its name, MLflow run id, or path.

    Raises ValueError naming the nearest match, or what MLflow lacks, OSError when it does not
    answer.
    """
    name = text.rstrip("/").rpartition("/")[2]
    with asking(uri) as mlflow:
        run = None if mlflow is None else find_run(mlflow, name)
        if run is None:
            names = names_by_id(uri)
            if name not in names:
                raise ValueError(_unknown(text, uri, names))
            assert mlflow is not None
            run = mlflow.get_run(name)
        return _record(mlflow, run)


def read_curves(uri: str, run_id: str) -> dict[str, Curve]:
    """The curves `train/*` of a run, by metric: {step: value}. Raises OSError as above."""
    with asking(uri) as mlflow:
        assert mlflow is not None, "the run was found there"
        names = [key for key in mlflow.get_run(run_id).data.metrics if key.startswith(CURVES)]
        return {
            name: {point.step: point.value for point in mlflow.get_metric_history(run_id, name)}
            for name in names
        }


def _unknown(text: str, uri: str, names: dict[str, str]) -> str:
    near = difflib.get_close_matches(text, names.values(), n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"MLflow at {uri} has no run {text!r}{hint}"


def _record(mlflow: Any, run: Any) -> Record:
    tags, run_id = run.data.tags, run.info.run_id
    codes = {k.removeprefix(CODE_TAG): v for k, v in tags.items() if k.startswith(CODE_TAG)}
    kept = {each.path for each in mlflow.list_artifacts(run_id, str(Path(PACKAGES).parent))}
    inputs = [each.dataset for each in run.inputs.dataset_inputs]
    if not inputs:
        raise ValueError(f"{tags[RUN_TAG]}: MLflow has no dataset of it; it did not begin to train")
    dataset = inputs[-1]
    packages = _artifact(mlflow, run_id, PACKAGES) if PACKAGES in kept else ""
    workers = tags.get("orchestrator.workers")
    return Record(
        run_id=run_id,
        name=tags[RUN_TAG],
        status=run.info.status,
        experiment=json.loads(_artifact(mlflow, run_id, EXPERIMENT_FILE)),
        data=(
            dataset.name,
            json.loads(dataset.profile)["version"],
            json.loads(dataset.source)["uri"],
        ),
        codes=codes or {"": tags.get("mlflow.source.git.commit", "unknown")},
        diffs=frozenset(digest for digest in codes if diff_name(digest) in kept),
        packages=read_packages(packages) or _tagged(tags),
        workers=None if workers is None else int(workers),
        device=tags.get(DEVICE_TAG),
        command=tags.get(COMMAND_TAG, ""),
        reproduces=tags.get(REPRODUCES_TAG),
    )


def _tagged(tags: dict[str, str]) -> dict[str, str]:
    """The few versions that are tags too: all that older runs have."""
    prefix = "version."
    return {
        tag.removeprefix(prefix): version
        for tag, version in tags.items()
        if tag.startswith(prefix) and tag != "version.python"
    }


def _artifact(mlflow: Any, run_id: str, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(mlflow.download_artifacts(run_id, name, folder)).read_text()
