"""What MLflow is told of a run before its first step: params, tags, input, notes, provenance."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import platform
import socket
import sys
from pathlib import Path

from orchestrator import notes, provenance
from orchestrator.config import Experiment, flat, identity, plain
from orchestrator.mlflow_runs import EXPERIMENT_TAG
from orchestrator.tracking import Tracker
from orchestrator.worker import Job
from shards.manifest import ATTRIBUTE, WORD
from shards.read import open_dataset

COMMAND_TAG = "orchestrator.command"
EXPERIMENT_FILE = "experiment.json"
_PACKAGES = ("torch", "ray", "mlflow-skinny", "numpy", "webdataset", "av", "opencv-python-headless")
_MANY = (WORD, ATTRIBUTE)  # counts that may be thousands


def family(experiment: Experiment) -> str:
    """The MLflow experiment of a run: its paper's file, so that variants stand side by side."""
    return type(experiment.model).__module__.rpartition(".")[2]


def describe(tracker: Tracker, job: Job) -> None:
    """Tells it all; what a person wrote as a note stays."""
    experiment = job.experiment
    deciding = flat(identity(experiment))
    tracker.status("RUNNING")
    tracker.params({k: v for k, v in deciding.items() if k != "name"})
    tracker.tags(
        {
            **{f"config.{k}": v for k, v in flat(experiment).items() if k not in deciding},
            **{f"version.{p}": importlib.metadata.version(p) for p in _PACKAGES},
            "version.python": platform.python_version(),
            EXPERIMENT_TAG: experiment.name,
            "orchestrator.paper": experiment.paper,
            COMMAND_TAG: _command(),
            "orchestrator.checkpoints": f"{job.site.run(job.name)}/checkpoints",
            "orchestrator.host": socket.gethostname(),
            "orchestrator.ray_job": os.environ.get("RAY_JOB_SUBMISSION_ID", ""),
            f"{provenance.CODE_TAG}{provenance.code_digest()}": job.git,
            "git.dirty": job.git.endswith("+dirty"),
            "mlflow.source.git.commit": job.git.removesuffix("+dirty"),
            "mlflow.source.name": experiment.name,
            "mlflow.source.type": "JOB",
            "mlflow.user": _user(),
        }
    )
    tracker.notes(run=notes.of_run(job), experiment=notes.of_experiment(experiment))
    _input(tracker, job)
    tracker.artifact(EXPERIMENT_FILE, json.dumps(plain(experiment), indent=1).encode())
    tracker.artifact(provenance.PACKAGES, provenance.write_packages())
    diff = provenance.code_diff() if job.git.endswith("+dirty") else None
    if diff is not None:
        tracker.artifact(provenance.diff_name(provenance.code_digest()), diff)


def _command() -> str:
    called = Path(sys.argv[0])
    command = called.stem if called.parent.name == __package__ else "run"
    return " ".join([f"python -m {__package__}.{command}", *sys.argv[1:]])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _input(tracker: Tracker, job: Job) -> None:
    data = job.experiment.data
    source = job.site.dataset(data.name)
    dataset = open_dataset(source, data.fraction)
    counts = dataset.manifest.counts.items()
    tracker.dataset(
        name=data.name,
        version=job.dataset_version,
        source=source,
        counts={
            "clips": dataset.samples,
            **{name: count for name, count in counts if not name.startswith(_MANY)},
        },
    )
