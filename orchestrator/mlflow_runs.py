"""MLflow as we speak to it: a run's place there, and how each kind of record is told.

The MLflow run is found by its tag `orchestrator.run` = run name. This room, the registry of models
and the code that travels with a model are the only ones that know MLflow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.outbox import Record

RUN_TAG = "orchestrator.run"
EXPERIMENT_TAG = "orchestrator.experiment"
HEARTBEAT_TAG = "orchestrator.heartbeat"
REPRODUCES_TAG = "orchestrator.reproduces"  # the name of the run that one was made to compare with
NOTE_TAG = "mlflow.note.content"
_OUR_NOTE_TAG = "orchestrator.note_sha256"  # of the note as we wrote it last
HEARTBEAT_S = 30.0
SILENT_S = 300.0
BATCH = 900  # MLflow takes 1,000 metrics a request.
_log = logging.getLogger(__name__)


def client(uri: str) -> Any:
    """An MlflowClient that gives up quickly on a server that does not answer."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # we say it once
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It would say at every try that nobody answers; the tracker says it once.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def client_of_existing(uri: str) -> Any | None:
    """A client for questions; None where SQLite's file is not there: asking would make it."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return None
    return client(uri)


def tags_of(uri: str, run_id: str) -> dict[str, str] | None:
    """The tags of our run with this MLflow run id; None when there is none.

    Raises OSError when MLflow does not answer.
    """
    runs = _answers(uri, f"attributes.run_id = '{run_id}'")
    return dict(runs[0].data.tags) if runs else None


def names_by_id(uri: str) -> dict[str, str]:
    """{MLflow run id: run name} of all our runs. Raises OSError when MLflow does not answer."""
    return {run.info.run_id: run.data.tags[RUN_TAG] for run in _answers(uri, "")}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run of ours that is over. params: the fields that decide its result, by dotted path, as
    text. metrics: the last value of each."""

    name: str
    experiment: str
    params: dict[str, str]
    metrics: dict[str, float]


def finished_runs(uri: str) -> list[Finished]:
    """All our runs whose status is FINISHED, the newest first, without reproductions: they are no
    samples of their own. Raises OSError when MLflow does not answer."""
    return [
        Finished(
            name=run.data.tags[RUN_TAG],
            experiment=run.data.tags.get(EXPERIMENT_TAG, ""),
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
        )
        for run in _answers(uri, "attributes.status = 'FINISHED'")
        if REPRODUCES_TAG not in run.data.tags
    ]


def _answers(uri: str, condition: str) -> list[Any]:
    with asking(uri) as mlflow:
        return [] if mlflow is None else list(_runs(mlflow, condition))


def status_of(uri: str, name: str) -> str | None:
    """What MLflow calls the state of the run `name`; None where it does not know it, or is away."""
    try:
        with asking(uri) as mlflow:
            run = None if mlflow is None else find_run(mlflow, name)
    except OSError:
        return None
    return None if run is None else str(run.info.status)


@contextmanager
def asking(uri: str) -> Iterator[Any | None]:
    """A client for questions, or None, as `client_of_existing` gives it; MLflow's errors become
    OSErrors that say so in a line."""
    with in_a_line(uri):
        yield client_of_existing(uri)


@contextmanager
def in_a_line(uri: str) -> Iterator[None]:
    """Makes OSErrors with a message in a line of what MLflow's clients raise: MLflow's own errors,
    HTTP's for artifacts by its server, S3's for artifacts without it."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, Boto3Error, BotoCoreError, ClientError) as error:
        raise OSError(f"MLflow at {uri} does not answer: {why(error)}") from None


def why(error: Exception) -> str:
    """What MLflow's client complains of, in a line, with what to do about a refusal."""
    text = str(error).split("\n")[0][:200]
    if "error code 401" in text:
        return f"{text}. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if "Permission denied" in text:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "this user")
        return f"{text}. {user} needs EDIT on that experiment or model, from who manages it"
    return text


def _runs(mlflow: Any, condition: str) -> Iterator[Any]:
    """Every run of ours that meets MLflow's `condition`, page by page."""
    ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    token: str | None = None
    while ids:
        page = mlflow.search_runs(ids, condition, max_results=1000, page_token=token)
        yield from (run for run in page if RUN_TAG in run.data.tags)
        token = page.token
        if not token:
            return


def find_run(mlflow: Any, name: str) -> Any | None:
    """The MLflow run of the run `name`, in whichever experiment, or None."""
    ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    runs = mlflow.search_runs(ids, f"tags.`{RUN_TAG}` = '{name}'", max_results=1) if ids else []
    return runs[0] if runs else None


def create_run(mlflow: Any, uri: str, *, name: str, experiment: str) -> Any:
    """A new MLflow run `name` in the MLflow experiment `experiment`, which is made if need be."""
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        location = None
        if uri.startswith("sqlite:///"):
            folder = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / experiment
            location = folder.as_uri()
        experiment_id = mlflow.create_experiment(
            experiment,
            artifact_location=location,
            # Else MLflow's pages show it as a chat application's.
            tags={"mlflow.experimentKind": "custom_model_development"},
        )
    else:
        experiment_id = found.experiment_id
    return mlflow.create_run(experiment_id, run_name=name, tags={RUN_TAG: name})


def silent_runs(mlflow: Any, *, older_than_s: float = SILENT_S) -> list[tuple[Any, float]]:
    """(run, seconds since its last heartbeat) of runs that MLflow calls RUNNING though nobody
    drives them, the longest silent first. A run without a heartbeat counts from its start."""
    found: list[tuple[Any, float]] = []
    for run in _runs(mlflow, "attributes.status = 'RUNNING'"):
        beat = float(run.data.tags.get(HEARTBEAT_TAG, run.info.start_time / 1000))
        silent_s = time.time() - beat
        if silent_s > older_than_s:
            found.append((run, silent_s))
    return sorted(found, key=lambda each: -each[1])


def reap(mlflow: Any, *, older_than_s: float = SILENT_S) -> list[str]:
    """Sets the status of silent runs to KILLED; their names. The same command resumes each."""
    names = []
    for run, _ in silent_runs(mlflow, older_than_s=older_than_s):
        mlflow.set_terminated(run.info.run_id, "KILLED")
        names.append(run.data.tags[RUN_TAG])
    return names


def last_steps(run: Any) -> dict[str, int]:
    """{metric: the last step that MLflow has of it}, of a run that MLflow gave; loads have none."""
    told = run.data.to_proto().metrics
    return {metric.key: metric.step for metric in told if not metric.key.startswith("system/")}


def send(
    mlflow: Any, run: str, records: Sequence[Record], folder: Path, told: Mapping[str, int]
) -> None:
    """Tells the run with the id `run` the records, in order; metrics last, in few requests.

    folder: the outbox's, with the artifacts. told: a metric up to its step there is passed over.
    Sending again what was sent does no harm. A record that MLflow refuses for what it says is
    passed over: it would block all behind it.
    """
    from mlflow.exceptions import MlflowException

    metrics: list[Any] = []
    for record in records:
        try:
            _SENDERS[record["kind"]](mlflow, run, record, folder, metrics)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            _log.error("MLflow refused a %s record, passed over: %s", record["kind"], error)
    metrics = [each for each in metrics if each.step > told.get(each.key, -1)]
    for start in range(0, len(metrics), BATCH):
        mlflow.log_batch(run, metrics=metrics[start : start + BATCH])


def _send_metrics(_: Any, _run: str, record: Record, _folder: Path, metrics: list[Any]) -> None:
    from mlflow.entities import Metric

    step = record.get("step", 0)
    metrics += [Metric(k, v, record["ms"], step) for k, v in record["values"].items()]


def _send_params(mlflow: Any, run: str, record: Record, _: Path, __: list[Any]) -> None:
    from mlflow.entities import Param

    params = [Param(k, v[:6000]) for k, v in record["values"].items()]
    for start in range(0, len(params), 100):
        mlflow.log_batch(run, params=params[start : start + 100])


def _send_tags(mlflow: Any, run: str, record: Record, _: Path, __: list[Any]) -> None:
    from mlflow.entities import RunTag

    tags = [RunTag(k, v) for k, v in record["values"].items()]
    for start in range(0, len(tags), 100):
        mlflow.log_batch(run, tags=tags[start : start + 100])


def _send_notes(mlflow: Any, run: str, record: Record, folder: Path, told: list[Any]) -> None:
    """Only where there is none, or what we wrote: people may have written their own."""
    there = mlflow.get_run(run)
    tags = there.data.tags
    if NOTE_TAG not in tags or _digest(tags[NOTE_TAG]) == tags.get(_OUR_NOTE_TAG):
        values = {NOTE_TAG: record["run"], _OUR_NOTE_TAG: _digest(record["run"])}
        _send_tags(mlflow, run, {"values": values}, folder, told)  # both, or neither
    experiment = mlflow.get_experiment(there.info.experiment_id)
    for tag, text in record["experiment"].items():
        if tag not in experiment.tags:
            mlflow.set_experiment_tag(experiment.experiment_id, tag, text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _send_artifact(mlflow: Any, run: str, record: Record, folder: Path, _: list[Any]) -> None:
    from PIL import Image

    path = folder / "artifacts" / record["name"]
    if not path.exists():
        return  # sent before a kill that came before the mark
    parent = record["name"].rpartition("/")[0]
    mlflow.log_artifact(run, str(path), parent or None)
    if record["slider"]:
        key, step = record["slider"]
        with Image.open(path) as image:
            mlflow.log_image(run, image, key=key, step=step, synchronous=True)
    path.unlink()


def _send_dataset(mlflow: Any, run: str, record: Record, _: Path, __: list[Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=record["name"],
        digest=record["version"][:36],
        source_type="shards",
        source=json.dumps({"uri": record["source"]}),
        profile=json.dumps({"version": record["version"], **record["counts"]}),
    )
    tag = InputTag("mlflow.data.context", "train")
    mlflow.log_inputs(run, [DatasetInput(dataset, [tag])])


def _send_status(mlflow: Any, run: str, record: Record, _: Path, __: list[Any]) -> None:
    if record["status"] == "RUNNING":
        mlflow.update_run(run, status="RUNNING")
    else:
        mlflow.set_terminated(run, record["status"], record.get("ms"))


_SENDERS: dict[str, Callable[[Any, Any, Record, Path, list[Any]], None]] = {
    "metrics": _send_metrics,
    "system": _send_metrics,
    "params": _send_params,
    "tags": _send_tags,
    "notes": _send_notes,
    "artifact": _send_artifact,
    "dataset": _send_dataset,
    "status": _send_status,
}
