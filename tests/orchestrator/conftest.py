"""A site below tmp_path with the dataset `squares`; a bucket of a real S3 protocol."""

import os
import secrets

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer


@pytest.fixture
def site(tmp_path, monkeypatch, make_dataset):
    """The environment of a run: dataset `squares`, runs and MLflow below tmp_path."""
    make_dataset(tmp_path / "shards" / "squares")
    monkeypatch.setenv("SHARDS_ROOT", str(tmp_path / "shards"))
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


@pytest.fixture
def bucket(monkeypatch):
    """The `s3://` URL of an empty bucket; the environment leads to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    name = f"runs-{secrets.token_hex(8)}"  # moto's servers of one process have one store
    boto3.Session().client("s3").create_bucket(Bucket=name)  # the default one would stay
    yield f"s3://{name}"
    server.stop()


@pytest.fixture
def finish(site):
    """Writes a run's only checkpoint, without training it: `finish(experiment)` gives its name.

    weights: instead of those that `seed` gives. step: after how many. scale: of the convolutions'
    weights, which at first are so small that whatever goes in, grey comes out.
    classes, words, attributes: their names.
    """

    def write(
        experiment,
        *,
        name=None,
        seed=0,
        step=6,
        weights=None,
        scale=1,
        classes=(),
        words=(),
        attributes=(),
    ):
        from orchestrator.checkpoint import Checkpoints
        from orchestrator.config import plain
        from shards.storage import open_store

        torch.manual_seed(seed)
        learner = experiment.model.build().state_dict() if weights is None else weights
        learner = {k: scale * v if v.dim() > 3 else v for k, v in learner.items()}
        name = name or f"{experiment.name}-0a1b2c3d"
        facts = {
            "run": name,
            "reader": {"dataset_version": "f" * 64},
            "experiment": plain(experiment),
            "classes": list(classes),
            "words": list(words),
            "attributes": list(attributes),
        }
        store = open_store(str(site / "runs" / name))
        store.write("attempts/0001.json", b"{}")
        Checkpoints(store, keep=2).save(step, {"learner": learner}, facts)
        return name

    return write
