"""A site below tmp_path with the dataset `squares`."""

import pytest


@pytest.fixture
def site(tmp_path, monkeypatch, make_dataset):
    """The environment of a run: dataset `squares`, runs and MLflow below tmp_path."""
    make_dataset(tmp_path / "shards" / "squares")
    monkeypatch.setenv("SHARDS_ROOT", str(tmp_path / "shards"))
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path
