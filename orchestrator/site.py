"""The site: where shards, runs and MLflow live. Read once from the environment, made absolute.

`SHARDS_ROOT`, `SHARDS_CACHE`, `RUNS_ROOT` and `MLFLOW_TRACKING_URI` have defaults below the current
directory that need no server; Ray and boto3 read `RAY_ADDRESS`, `AWS_ENDPOINT_URL_S3` and
`AWS_*` themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shards.storage import is_remote, join


@dataclass(frozen=True, kw_only=True)
class Site:
    """Absolute locations; `shards_root` and `runs_root` may be `s3://` URLs.

    shards_cache: a folder on each node's own disk.
    """

    shards_root: str
    shards_cache: str
    runs_root: str
    mlflow_uri: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Site:
        """Resolves the variables against the current directory."""
        var = Path("var").absolute()
        return cls(
            shards_root=_absolute(environment.get("SHARDS_ROOT") or str(var / "shards")),
            shards_cache=_absolute(environment.get("SHARDS_CACHE") or str(var / "cache")),
            runs_root=_absolute(environment.get("RUNS_ROOT") or str(var / "runs")),
            mlflow_uri=_absolute_uri(
                environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{var}/mlflow.db"
            ),
        )

    def dataset(self, name: str) -> str:
        """The location of the dataset `name`."""
        return join(self.shards_root, name)

    def run(self, name: str) -> str:
        """The location of everything the run `name` leaves behind."""
        return join(self.runs_root, name)

    def outbox(self, name: str) -> Path:
        """The folder, always local, where a run's tracking waits until MLflow has it."""
        if is_remote(self.runs_root):
            return Path("~/.cache/video-orchestrator/outbox").expanduser() / name
        return Path(self.run(name)) / "outbox"


def _absolute(location: str) -> str:
    return location if is_remote(location) else str(Path(location).expanduser().absolute())


def _absolute_uri(uri: str) -> str:
    prefix = "sqlite:///"
    if not uri.startswith(prefix) or uri.startswith("sqlite:////"):
        return uri
    return prefix + str(Path(uri.removeprefix(prefix)).absolute())
