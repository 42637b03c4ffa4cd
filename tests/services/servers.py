"""A real PostgreSQL and a real `mlflow server` with basic auth, on loopback, of this process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.server.auth.client import AuthServiceClient

ADMIN, PASSWORD = "admin", "not-a-secret-of-anyone"
RESEARCHER = ("ada", "a-password-of-her-own")
DATABASES = ("mlflow", "auth")


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_folder() -> Path | None:
    """Where PostgreSQL's programs are; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return Path(found).resolve().parent if found else next(iter(folders), None)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A new cluster with the databases DATABASES; its URL, less the database.

    PostgreSQL refuses to run as root, so root runs it as `postgres`.
    """
    programs = postgres_folder()
    assert programs is not None, "PostgreSQL is not installed: apt-get install postgresql"
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="vo-pg-", dir="/tmp"))
    if user:
        shutil.chown(folder, user, user)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if user:
        shutil.chown(secret, user, user)
    port, data = free_port(), folder / "data"
    init = [programs / "initdb", "-D", data, "-U", ADMIN, "-A", "scram-sha-256"]
    init += [f"--pwfile={secret}", "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run(init, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
    serve = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder]
    serve += ["-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(serve, cwd=folder, user=user, stdout=log, stderr=log)
    try:
        _make_databases(port, process, folder / "log")
        yield f"postgresql+psycopg2://{ADMIN}:{PASSWORD}@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # its fast shutdown: clients are sent away
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _make_databases(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user=ADMIN, password=PASSWORD, dbname="postgres"
            )
            break
        except psycopg2.OperationalError:
            gone = process.poll() is not None or time.monotonic() > deadline
            assert not gone, f"PostgreSQL did not start:\n{log.read_text()[-3000:]}"
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in DATABASES:
            cursor.execute(f"CREATE DATABASE {name}")
    connection.close()


@dataclass
class MlflowServer:
    """An `mlflow server`, which may be stopped and started again at the same address.

    database: PostgreSQL's URL, less the database. artifacts: an `s3://` URL.
    """

    database: str
    artifacts: str
    folder: Path
    allowed_hosts: str | None = None
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_up(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        config = self.folder / "auth.ini"
        config.write_text(
            f"[mlflow]\ndefault_permission = READ\nadmin_username = {ADMIN}\n"
            f"database_uri = {self.database}/auth\nauth_cache_ttl_seconds = 60\n"
        )
        environment = os.environ | {
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-these-tests",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"{self.database}/mlflow"]
        command += ["--artifacts-destination", self.artifacts]
        if self.allowed_hosts is not None:
            command += ["--allowed-hosts", self.allowed_hosts]
        with (self.folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2)
                return
            except urllib.error.HTTPError:
                return  # it refuses our host: that is an answer
            except OSError:
                assert self._process is not None
                gone = self._process.poll() is not None or time.monotonic() > deadline
                text = (self.folder / "mlflow.log").read_text()[-3000:]
                assert not gone, f"the MLflow server did not start:\n{text}"
                time.sleep(0.2)

    def stop(self) -> None:
        """Ends it and its workers, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def make_user(self, name: str, password: str) -> None:
        """A user who is no administrator."""
        AuthServiceClient(self.uri).create_user(name, password)
