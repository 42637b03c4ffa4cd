"""One process's voice in MLflow: one MLflow run per run name, whatever happens to the server.

`Tracker` keeps every record in an outbox on disk and a thread of its own sends them, so the loop
never waits for the server and a server that is away loses nothing: it is said once, training goes
on, and what is kept is sent when the server is back, at the end, or at the next start.

The MLflow run is found by its tag `orchestrator.run` = run name. The driver creates it; the workers
wait until it is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.machine import Machine
from orchestrator.mlflow_runs import (
    BATCH,
    HEARTBEAT_S,
    HEARTBEAT_TAG,
    client,
    create_run,
    find_run,
    in_a_line,
    last_steps,
    send,
    why,
)
from orchestrator.outbox import Outbox, is_full
from shards.storage import Store

_log = logging.getLogger(__name__)


class Tracker:
    """One process's voice in one MLflow run.

    writer: the outbox's name, one per process that speaks at the same time.
    creates: the MLflow experiment to create the run in when it is missing, and the driver's mark:
    such a tracker also tells MLflow that the run is driven, by a heartbeat. None waits for the run.
    store: the run's; where it is remote, `keep` and `close` put there what MLflow has not taken.
    delivers: sends what a run that is over left waiting; nobody drives it and it is not RUNNING.
    """

    def __init__(
        self,
        *,
        uri: str,
        run: str,
        outbox: Path,
        writer: str,
        creates: str | None = None,
        store: Store | None = None,
        delivers: bool = False,
    ) -> None:
        self._uri = uri
        self._run = run
        self._creates = creates
        self._delivers = delivers
        self._outbox = Outbox(outbox, writer, store)
        self._last_step = self._outbox.last_step()
        self._mlflow: Any = None
        self._told: dict[str, int] = {}
        self._is_over = False
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

    def notes(self, *, run: str, experiment: Mapping[str, str] = MappingProxyType({})) -> None:
        """Markdown that MLflow shows with the run, unless a person has changed it since it was told
        last, and tags of its experiment, each only where there is none yet."""
        self._outbox.append({"kind": "notes", "run": run, "experiment": dict(experiment)})

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
        """RUNNING; or FINISHED, FAILED or KILLED, each of which ends the run at this moment."""
        now = int(time.time() * 1000)
        self._outbox.append({"kind": "status", "status": status, "ms": now})

    def do(self, action: Callable[[Any, str], None], *, timeout_s: float) -> bool:
        """Calls `action(mlflow, run_id)` here, once the run is there; False if it is not in time.

        What was told before may not have been sent yet. Raises OSError where MLflow refuses, or
        ceases to answer.
        """
        deadline = time.monotonic() + timeout_s
        while self.run_id is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.run_id is None:
            return False
        with in_a_line(self._uri):
            action(client(self._uri), self.run_id)
        return True

    def keep(self) -> float:
        """Makes what MLflow has not taken outlive this disk; the seconds that it took.

        Called before each checkpoint is written, so that none stands for steps never told.
        """
        started = time.perf_counter()
        self._outbox.keep()
        return time.perf_counter() - started

    def close(self, *, timeout_s: float) -> bool:
        """Sends what is left; True when nothing is. What is left stays for the next start."""
        self._closing.set()
        self._thread.join(timeout_s)
        self._outbox.keep()
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
        if self._said:
            return
        self._said = True
        if is_full(error):
            _log.warning("nothing more is told to MLflow: %s is full", self._outbox.folder)
        else:
            _log.warning(
                "MLflow at %s does not answer (%s: %s). Training goes on; metrics and pictures are "
                "kept in %s and sent when it is back",
                self._uri,
                type(error).__name__,
                why(error),
                self._outbox.folder,
            )

    def _send_some(self) -> bool:
        if self.run_id is None and not self._connect():
            return False
        assert self.run_id is not None
        drives = self._creates is not None and not self._delivers
        if drives and time.monotonic() - self._beat > HEARTBEAT_S:
            self._beat = time.monotonic()
            self._mlflow.set_tag(self.run_id, HEARTBEAT_TAG, f"{time.time():.0f}")
        records, mark = self._outbox.pending(BATCH)
        if not records:
            return False
        if self._delivers:
            past = {"RUNNING"} | ({"FAILED", "KILLED", "FINISHED"} if self._is_over else set())
            records = [record for record in records if record.get("status") not in past]
        send(self._mlflow, self.run_id, records, self._outbox.folder, self._told)
        self._outbox.sent(mark)
        return True

    def _connect(self) -> bool:
        self._mlflow = client(self._uri)
        run = find_run(self._mlflow, self._run)
        if run is None and self._creates is not None:
            run = create_run(self._mlflow, self._uri, name=self._run, experiment=self._creates)
        if run is None:
            return False
        # What a disk that is lost had sent, and nobody here knows of.
        self._told = last_steps(run)
        self._is_over = run.info.status == "FINISHED"
        self.run_id = run.info.run_id
        if self._uri.startswith("http"):
            place = f"experiments/{run.info.experiment_id}/runs/{self.run_id}"
            self.page = f"{self._uri}/#/{place}?workflowType=machine_learning"
        return True


def node_of(hosts: Sequence[str], rank: int) -> tuple[int | None, bool]:
    """(the number of a worker's node, None where all are on one; whether it speaks for its node).

    hosts: of every worker, by rank. Nodes are numbered as they first come there.
    """
    nodes = list(dict.fromkeys(hosts))
    mine = hosts[rank]
    return (nodes.index(mine) if len(nodes) > 1 else None), hosts.index(mine) == rank


class SystemMetrics:
    """Samples this machine's load for MLflow's system metrics page until it is closed.

    node: its number, where a run has several: the page lays `system/node_N/...` over each other.
    """

    def __init__(self, tracker: Tracker, *, node: int | None = None, every_s: float = 10.0) -> None:
        self._tracker = tracker
        self._prefix = "system/" if node is None else f"system/node_{node}/"
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops sampling."""
        self._closing.set()
        self._thread.join(5)

    def _work(self) -> None:
        machine = Machine()
        is_over = False
        while not is_over:
            is_over = self._closing.wait(self._every_s)  # once more at the end: a run may be short
            load = machine.load().items()
            named = {name.replace("system/", self._prefix, 1): value for name, value in load}
            self._tracker.system_metrics(named)
