"""Starting one process and ending all that came of it, orphans too, and nothing else."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.service import Service, Started, end, owner

# Leaves the session and the process group of its parent, as Ray's workers and jobs do.
DAEMON = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
pathlib.Path("child").write_text(str(child.pid))
print("ready", flush=True)
time.sleep(600)
"""


def _service(program: str) -> Service:
    return Service(
        name="any",
        argv=(sys.executable, "-c", program),
        environment=dict(os.environ),
        ports={},
        url="",
        probe="",
        ready=b"",
    )


def _start_with_child(folder: Path) -> tuple[Started, psutil.Process]:
    started = _service(DAEMON).start(folder, folder / "log")
    while "ready" not in (folder / "log").read_text():
        assert started.is_alive()
    return started, psutil.Process(int((folder / "child").read_text()))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_end_of_a_service_ends_a_child_in_another_session(tmp_path: Path) -> None:
    started, child = _start_with_child(tmp_path)

    end([started])

    assert not started.is_alive()
    assert not _runs(child)


def test_end_after_the_first_process_was_killed_ends_the_orphan(tmp_path: Path) -> None:
    started, child = _start_with_child(tmp_path)
    first = psutil.Process(started.pid)
    first.kill()
    first.wait()  # our own child: reaped
    assert _runs(child)

    end([started])

    assert not _runs(child)


def test_end_when_another_process_has_the_recorded_pid_spares_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        process = psutil.Process(stranger.pid)
        mine = Started(pid=stranger.pid, created=process.create_time(), mark="any-0")
        assert mine.is_alive()
        recycled = replace(mine, created=mine.created - 60)

        end([recycled])

        assert not recycled.is_alive()
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS shows connections to root only")
def test_owner_of_a_listening_port_is_named_by_pid() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert f"pid {os.getpid()} (" in owner(server.getsockname()[1])
