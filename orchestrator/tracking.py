"""The only room that knows MLflow: one MLflow run per run name, whatever happens to the server.

`Tracker` keeps every record in an outbox on disk and a thread of its own sends them, so the loop
never waits for the server and a server that is away loses nothing: it is said once, training goes
on, and what is kept is sent when the server is back, at the end, or at the next start.

The MLflow run is found by its tag `orchestrator.run` = run name. The driver creates it; the workers
wait until it is there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.outbox import Outbox, Record

RUN_TAG = "orchestrator.run"
HEARTBEAT_TAG = "orchestrator.heartbeat"
HEARTBEAT_S = 30.0
SILENT_S = 300.0
_BATCH = 900  # MLflow takes 1,000 metrics a request.
_log = logging.getLogger(__name__)


def client(uri: str) -> Any:
    """An MlflowClient that gives up quickly on a server that does not answer."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It would say at every try that nobody answers; the tracker says it once.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


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
    ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    found: list[tuple[Any, float]] = []
    token: str | None = None
    while ids:
        page = mlflow.search_runs(
            ids, "attributes.status = 'RUNNING'", max_results=1000, page_token=token
        )
        for run in page:
            beat = float(run.data.tags.get(HEARTBEAT_TAG, run.info.start_time / 1000))
            silent_s = time.time() - beat
            if RUN_TAG in run.data.tags and silent_s > older_than_s:
                found.append((run, silent_s))
        token = page.token
        if not token:
            break
    return sorted(found, key=lambda each: -each[1])


def reap(mlflow: Any, *, older_than_s: float = SILENT_S) -> list[str]:
    """Sets the status of silent runs to KILLED; their names. The same command resumes each."""
    names = []
    for run, _ in silent_runs(mlflow, older_than_s=older_than_s):
        mlflow.set_terminated(run.info.run_id, "KILLED")
        names.append(run.data.tags[RUN_TAG])
    return names


class Tracker:
    """One process's voice in one MLflow run.

    writer: the outbox's name, one per process that speaks at the same time.
    creates: the MLflow experiment to create the run in when it is missing, and the driver's mark:
    such a tracker also tells MLflow that the run is driven, by a heartbeat. None waits for the run.
    """

    def __init__(
        self, *, uri: str, run: str, outbox: Path, writer: str, creates: str | None = None
    ) -> None:
        self._uri = uri
        self._run = run
        self._creates = creates
        self._outbox = Outbox(outbox, writer)
        self._last_step = self._outbox.last_step()
        self._mlflow: Any = None
        self.run_id: str | None = None
        self.page = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
        self._said = False
        self._beat = -HEARTBEAT_S
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{writer}", daemon=True)
        self._thread.start()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics after `step` steps. A step that an earlier attempt told already is passed over,
        so that curves stay monotone in step after a restart."""
        if step > self._last_step:
            now = int(time.time() * 1000)
            record = {"kind": "metrics", "step": step, "ms": now, "values": dict(values)}
            self._outbox.append(record)

    def system_metrics(self, values: Mapping[str, float]) -> None:
        """Machine metrics, at the present time."""
        now = int(time.time() * 1000)
        self._outbox.append({"kind": "system", "ms": now, "values": dict(values)})

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters of the run; set once, the same at every restart."""
        self._outbox.append({"kind": "params", "values": {k: str(v) for k, v in values.items()}})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Tags of the run; the newest value stands."""
        self._outbox.append({"kind": "tags", "values": {k: str(v) for k, v in values.items()}})

    def artifact(self, name: str, data: bytes, *, slider: tuple[str, int] | None = None) -> None:
        """A file of the run, `name` with forward slashes; it waits on disk until it is sent.

        slider: (key, step) to show a PNG also on MLflow's image slider `key` at `step`.
        """
        path = self._outbox.folder / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._outbox.append({"kind": "artifact", "name": name, "slider": slider})

    def dataset(self, *, name: str, version: str, source: str, counts: Mapping[str, int]) -> None:
        """The run's input."""
        record = {"kind": "dataset", "name": name, "version": version, "source": source}
        self._outbox.append({**record, "counts": dict(counts)})

    def status(self, status: str) -> None:
        """RUNNING, FINISHED, FAILED or KILLED."""
        self._outbox.append({"kind": "status", "status": status})

    def do(self, action: Callable[[Any, str], None], *, timeout_s: float) -> bool:
        """Sends what is pending, then calls `action(mlflow, run_id)` here; False if it cannot."""
        deadline = time.monotonic() + timeout_s
        while self.run_id is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.run_id is None:
            return False
        action(client(self._uri), self.run_id)
        return True

    def close(self, *, timeout_s: float) -> bool:
        """Sends what is left; True when nothing is. What is left stays for the next start."""
        self._closing.set()
        self._thread.join(timeout_s)
        left, _ = self._outbox.pending(1)
        if left:
            _log.warning(
                "MLflow at %s has not taken everything; the rest is kept in %s for the next start",
                self._uri,
                self._outbox.folder,
            )
        return not left

    def _work(self) -> None:
        wait_s = 0.2
        while True:
            closing = self._closing.is_set()
            try:
                sent = self._send_some()
            except Exception as error:  # whatever the server or the network does: keep, try again
                self._say_once(error)
                wait_s = min(30.0, 2 * wait_s)
                if closing:
                    return
            else:
                self._said = False
                wait_s = 0.5
                if sent:
                    continue
                if closing:
                    return
            self._closing.wait(wait_s)

    def _say_once(self, error: Exception) -> None:
        if not self._said:
            _log.warning(
                "MLflow at %s does not answer (%s: %s). Training goes on; metrics and pictures are "
                "kept in %s and sent when it is back",
                self._uri,
                type(error).__name__,
                str(error).split("\n")[0][:200],
                self._outbox.folder,
            )
            self._said = True

    def _send_some(self) -> bool:
        if self.run_id is None and not self._connect():
            return False
        if self._creates is not None and time.monotonic() - self._beat > HEARTBEAT_S:
            self._beat = time.monotonic()
            self._mlflow.set_tag(self.run_id, HEARTBEAT_TAG, f"{time.time():.0f}")
        records, mark = self._outbox.pending(_BATCH)
        if not records:
            return False
        metrics: list[Any] = []
        for record in records:
            self._send(record, metrics)
        for start in range(0, len(metrics), _BATCH):
            self._mlflow.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])
        self._outbox.sent(mark)
        return True

    def _send(self, record: Record, metrics: list[Any]) -> None:
        from mlflow.exceptions import MlflowException

        send = _SENDERS[record["kind"]]
        try:
            send(self._mlflow, self.run_id, record, self._outbox.folder, metrics)
        except MlflowException as error:
            # A record that the server refuses for what it says would block all behind it.
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            _log.error("MLflow refused a %s record, passed over: %s", record["kind"], error)

    def _connect(self) -> bool:
        self._mlflow = client(self._uri)
        run = find_run(self._mlflow, self._run)
        if run is None and self._creates is not None:
            run = create_run(self._mlflow, self._uri, name=self._run, experiment=self._creates)
        if run is None:
            return False
        self.run_id = run.info.run_id
        if self._uri.startswith("http"):
            self.page = f"{self._uri}/#/experiments/{run.info.experiment_id}/runs/{self.run_id}"
        return True


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
    for key, value in record["values"].items():
        mlflow.set_tag(run, key, value)


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
    import json

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
        mlflow.set_terminated(run, record["status"])


_SENDERS: dict[str, Callable[[Any, Any, Record, Path, list[Any]], None]] = {
    "metrics": _send_metrics,
    "system": _send_metrics,
    "params": _send_params,
    "tags": _send_tags,
    "artifact": _send_artifact,
    "dataset": _send_dataset,
    "status": _send_status,
}


class SystemMetrics:
    """Samples this machine's load for MLflow's system metrics page until it is closed."""

    def __init__(self, tracker: Tracker, *, every_s: float = 10.0) -> None:
        self._tracker = tracker
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops sampling."""
        self._closing.set()
        self._thread.join(5)

    def _work(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        try:
            monitors.append(GPUMonitor())
        except Exception as error:  # no driver, no GPU: a machine without one is no fault
            _log.debug("no GPU metrics: %s", error)
        while not self._closing.wait(self._every_s):
            values: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                values |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            self._tracker.system_metrics({f"system/{k}": v for k, v in values.items()})
