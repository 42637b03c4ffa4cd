"""What a command adds to the record of a run that is over: figures and pictures in MLflow.

The run is found by its name. Where MLflow has no such run, or does not answer, that is said and is
no error: what was measured is also in files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.mlflow_runs import client_of_existing, find_run, send
from orchestrator.outbox import Record
from orchestrator.site import Site


def add(
    site: Site,
    name: str,
    *,
    step: int,
    metrics: Mapping[str, float] | None = None,
    files: Mapping[str, bytes] | None = None,
    tags: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> str | None:
    """Adds metrics at `step`, files by artifact name, and tags to a run; its MLflow run id.

    None where there is no such run, said on the terminal unless `quiet`. Its status stays as it is.
    """
    records: list[Record] = []
    if metrics:
        now = int(time.time() * 1000)
        records.append({"kind": "metrics", "step": step, "ms": now, "values": dict(metrics)})
    if tags:
        records.append({"kind": "tags", "values": dict(tags)})
    with tempfile.TemporaryDirectory() as folder:
        for file, data in (files or {}).items():
            path = Path(folder, "artifacts", file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            records.append({"kind": "artifact", "name": file, "slider": None})
        try:
            mlflow = client_of_existing(site.mlflow_uri)
            run = find_run(mlflow, name) if mlflow is not None else None
            if run is None and not quiet:
                print(f"MLflow at {site.mlflow_uri} has no run {name}: nothing is added there")
            if run is None:
                return None
            send(mlflow, run.info.run_id, records, Path(folder), {})
        except Exception as error:  # whatever a server or the network does: the files stand
            reason = str(error).split("\n")[0][:200]
            print(f"MLflow at {site.mlflow_uri} does not take what is new of {name}: {reason}")
            return None
    return str(run.info.run_id)
