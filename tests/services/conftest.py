"""MLflow as a product: its server on PostgreSQL, artifacts in S3, users with passwords."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.servers import (
    ADMIN,
    PASSWORD,
    RESEARCHER,
    MlflowServer,
    postgres,
    postgres_folder,
)
from tests.shards.s3.conftest import (  # noqa: F401 - fixtures
    KEY,
    SECRET,
    client,
    seaweed_endpoint,
)


@pytest.fixture(scope="session")
def s3(seaweed_endpoint: str) -> Iterator[str]:  # noqa: F811 - the fixture
    """The endpoint of a real S3 server, with the buckets `mlflow`, `runs` and `shards`; this
    process's environment leads to it, and so do those of its children."""
    for name in ("mlflow", "runs", "shards"):
        client(seaweed_endpoint).create_bucket(Bucket=name)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": seaweed_endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
        }.items():
            patch.setenv(name, value)
        yield seaweed_endpoint


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed (make test-services installs it)")
    with postgres() as url:
        yield url


@pytest.fixture(scope="session")
def _server(
    s3: str, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    server = MlflowServer(
        database=database, artifacts="s3://mlflow/artifacts", folder=tmp_path_factory.mktemp("ml")
    )
    try:
        server.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
            patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
            server.make_user(*RESEARCHER)
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(
    _server: MlflowServer,
    make_dataset,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MlflowServer]:
    """The MLflow server, up; the environment is a researcher's: runs in S3, her password."""
    make_dataset(tmp_path / "shards/squares")
    monkeypatch.setenv("SHARDS_ROOT", str(tmp_path / "shards"))
    monkeypatch.setenv("RUNS_ROOT", f"s3://runs/{tmp_path.name}")
    monkeypatch.setenv("HOME", str(tmp_path))  # where outboxes are that wait
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", RESEARCHER[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", RESEARCHER[1])
    yield _server
    if not _server.is_up:
        _server.start()
