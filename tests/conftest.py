"""What every test runs under: one thread, quiet services, own Ray folder, nothing left running."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

# Every descendant process inherits this mark, daemons too: what still bears it at the end leaked.
MARK = "VIDEO_ORCHESTRATOR_TESTS"
SESSION = f"{os.getpid()}-{psutil.Process().create_time()}"
GRACE_S = 15.0

# Before ray, torch or cv2 is imported anywhere: they read these once.
os.environ[MARK] = SESSION
os.environ.pop("RAY_ADDRESS", None)  # a developer's running cluster is not for the tests
os.environ.pop("RAY_API_SERVER_ADDRESS", None)
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="vo-", dir="/tmp")  # sockets: 107 bytes at most
for name, value in {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray listens on loopback only
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}.items():
    os.environ.setdefault(name, value)

import numpy as np  # noqa: E402

from shards.manifest import ClipFormat, Manifest, Shard  # noqa: E402
from shards.storage import LocalStore  # noqa: E402
from shards.tarfmt import format_index, write_tar  # noqa: E402

settings.register_profile("project", deadline=None)  # a busy machine is not a failure
settings.load_profile("project")


# The folders that need more than Python packages: `make test-services`, and so on, provide it.
TESTS = Path(__file__).parent
SUITES = {"services": "services", "kubernetes/pods": "pods", "kubernetes": "kubernetes"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test of these folders with its suite."""
    for item in items:
        here = (folder for folder in SUITES if item.path.is_relative_to(TESTS / folder))
        if folder := next(here, None):
            item.add_marker(SUITES[folder])


def _left_behind() -> list[psutil.Process]:
    """Live processes of this session, but for multiprocessing's own, which end with this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            is_ours = process.pid != os.getpid() and process.environ().get(MARK) == SESSION
            if is_ours and "multiprocessing" not in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays_running() -> Iterator[None]:
    """Kills what the tests started and did not end, such as a Ray head, and fails because of it."""
    yield
    deadline = time.monotonic() + GRACE_S
    while _left_behind() and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = []
    for process in _left_behind():
        with contextlib.suppress(psutil.NoSuchProcess):
            lines.append(f"pid {process.pid}: {' '.join(process.cmdline())[:120]}")
            process.kill()
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
    assert not lines, "processes that tests left running:\n" + "\n".join(lines)


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., None]:
    """Writes a small dataset of moving squares: `make_dataset(location, clips=40, shards=4)`."""
    return write_dataset


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos, digits and action strips, kept beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs train in this process, as one worker without Ray."""
    import torch

    from orchestrator import launch
    from orchestrator.loop import World
    from orchestrator.worker import Job, work

    def train(job: Job) -> dict[str, Any]:
        return work(job, World(), torch.device("cpu"))

    monkeypatch.setattr(launch, "connect", lambda _experiment: None)
    monkeypatch.setattr(launch, "train", train)
    monkeypatch.setattr(launch, "_stop_on_sigterm", lambda _store: None)
    monkeypatch.setattr("orchestrator.probe.cluster_checks", lambda _experiment: {})


def write_dataset(
    location: Path | str,
    *,
    clips: int = 40,
    shards: int = 4,
    labels: tuple[str, ...] = (),
    sources: int | None = None,
) -> None:
    """u8 clips of a square that moves at its own speed over its own grey; labels go round.

    sources: so many videos that the clips are of, which go round as well; None does not say.
    """
    store = LocalStore(str(location))
    written = []
    for number in range(shards):
        members = []
        for n in range(number, clips, shards):
            video = np.full((32, 64, 64, 3), 40 + 4 * (n % 20), np.uint8)
            for t in range(32):
                left = (n + t * (1 + n % 3)) % 48
                video[t, 24:40, left : left + 16] = 220
            key = f"clip{n:05d}"
            note = {"n": n, "labels": [labels[n % len(labels)]] if labels else []}
            note |= {"source": f"video{n % sources}.avi"} if sources else {}
            members += [
                (f"{key}.json", json.dumps(note).encode()),
                (f"{key}.u8", video.tobytes()),
            ]
        buffer = io.BytesIO()
        index = format_index(write_tar(buffer, members))
        tar = buffer.getvalue()
        shard = Shard(
            name=f"{number:06d}",
            samples=len(members) // 2,
            bytes=len(tar),
            sha256=hashlib.sha256(tar).hexdigest(),
            index_bytes=len(index),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        store.write(shard.tar, tar)
        store.write(shard.index, index)
        written.append(shard)
    clip = ClipFormat(frames=32, height=64, width=64, channels=3, fps=25.0, encoding="u8")
    counts = {"clips": clips} | {f"label {label}": clips // len(labels) for label in labels}
    manifest = Manifest(clip=clip, shards=tuple(written), recipe={"test": 1}, counts=counts)
    store.write("manifest.json", manifest.to_json())
