"""One server of a local cluster: start it, ask whether it answers, end all that came of it.

Every descendant of a service inherits the variable `CLUSTER_LOCAL_SERVICE` with the service's own
value. Ray's workers and jobs leave their parents' process groups, and a killed head leaves orphans:
the mark finds them, and nothing that we did not start. Some of Ray's processes write their title
over their environment and show no mark; those are found as children of others.
"""

from __future__ import annotations

import contextlib
import http.client
import shlex
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

HOST = "127.0.0.1"
MARK = "CLUSTER_LOCAL_SERVICE"
TERMINATE_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """What to run, where it listens, and how it says that it is ready.

    ports: by option name; url: for people; probe: a URL whose answer contains `ready`.
    """

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    ports: dict[str, int]
    url: str
    probe: str
    ready: bytes

    def start(self, directory: Path, log: Path) -> Started:
        """Starts it in `directory`, in a session of its own: Ctrl-C in the terminal spares it."""
        mark = f"{self.name}-{uuid.uuid4().hex}"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.argv,
                cwd=directory,
                env={**self.environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        created = psutil.Process(process.pid).create_time()
        return Started(pid=process.pid, created=created, mark=mark)

    def answers(self) -> bool:
        """Whether the probe says ready. No proxy: one would be asked for a loopback address."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.probe, timeout=5) as response:
                return self.ready in response.read()
        except (OSError, http.client.HTTPException):
            return False


@dataclass(frozen=True, kw_only=True)
class Started:
    """A started service's first process; `created` tells it from a later owner of the same pid."""

    pid: int
    created: float
    mark: str

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and _runs(process)
        return False

    def processes(self) -> list[psutil.Process]:
        """Every live process of the service, orphans included."""
        marked = [process for process in psutil.process_iter() if _mark(process) == self.mark]
        found = set(marked)
        for process in marked:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.update(process.children(recursive=True))
        return [process for process in found if _runs(process)]


def end(services: Sequence[Started]) -> None:
    """Ends every process of `services`: the first ones are asked, what then remains is killed.

    Polls, as psutil would wait for a zombie, which in a container may never be reaped.
    """
    remaining = {process for service in services for process in service.processes()}
    for service in services:
        with contextlib.suppress(psutil.NoSuchProcess):
            if service.is_alive():
                psutil.Process(service.pid).terminate()
    deadline = time.monotonic() + TERMINATE_TIMEOUT_S
    while any(service.is_alive() for service in services) and time.monotonic() < deadline:
        time.sleep(0.05)
    while remaining := {process for process in remaining if _runs(process)}.union(
        *(service.processes() for service in services)
    ):
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def owner(port: int) -> str:
    """Who listens on `port`: `pid 12 (command)`, or `another process` where that is not shown."""
    with contextlib.suppress(psutil.Error):  # macOS shows connections to root only
        for connection in psutil.net_connections("tcp"):
            is_it = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if is_it and connection.pid is not None:
                command = shlex.join(psutil.Process(connection.pid).cmdline())
                short = command if len(command) <= 80 else command[:77] + "..."
                return f"pid {connection.pid} ({short})"
    return "another process"


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):  # gone, or another user's
        return None
