"""A Ray head and an MLflow server on this machine, for this directory, bound to loopback only.

    python -m cluster.local up | status | down

`up` waits until both answer; the second `up` only says so, and after one of the two has died it
starts that one again. `down` takes down exactly what was started. What is up, on which ports, is
recorded in `var/cluster/local.json` below the current directory, beside the logs.

Jobs (`ray job submit -- python -m orchestrator.run ...`) inherit the head's environment and
directory, so that is where the site is set: this environment's `python`, `SHARDS_ROOT`,
`SHARDS_CACHE`, `RUNS_ROOT`, and `MLFLOW_TRACKING_URI` pointing at the server. Other processes join
the cluster through `. var/cluster/local.env`, never by accident: the head keeps its files in a
folder of its own, where a bare `ray.init()` does not look.

Ray's authentication is off, because nothing listens beyond loopback. That takes more than
`--node-ip-address=127.0.0.1`: Ray replaces a loopback address by the machine's own, and its GCS
then listens on every interface, unless told that there is one machine (see `_ray_environment`).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from cluster.service import HOST, Service, Started, end, free_port, is_free, owner

ANSWER_TIMEOUT_S = 180.0


class LocalClusterError(RuntimeError):
    """The cluster is not in the state asked for; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """TCP ports on loopback. The fields' names are the command's options."""

    ray: int = 6379
    dashboard: int = 8265
    client: int = 10001
    mlflow: int = 5000

    def __post_init__(self) -> None:
        for name, port in asdict(self).items():
            if not 1024 <= port <= 65535:
                raise ValueError(f"--{name}-port {port}: must be between 1024 and 65535")
        if len(set(asdict(self).values())) < len(fields(self)):
            raise ValueError(f"the ports must differ, got {asdict(self)}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What `var/cluster/local.json` says."""

    ports: Ports = field(default_factory=Ports)
    services: dict[str, Started] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path) -> Record:
        """The record of the directory `root`; an empty one where nothing was started."""
        path = _folder(root) / "local.json"
        if not path.exists():
            return cls()
        content = json.loads(path.read_text())
        services = {name: Started(**each) for name, each in content["services"].items()}
        return cls(ports=Ports(**content["ports"]), services=services)

    def save(self, root: Path) -> None:
        """Writes the record, whole or not at all."""
        path = _folder(root) / "local.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(path)


def plan(root: Path, ports: Ports, environment: Mapping[str, str]) -> tuple[Service, Service]:
    """What `up` starts for the directory `root`, given the caller's environment. Starts nothing."""
    dashboard = f"http://{HOST}:{ports.dashboard}"
    mlflow = f"http://{HOST}:{ports.mlflow}"
    ray = _ray_environment(root, ports, environment)
    ray_head = Service(
        name="ray",
        argv=(
            *(str(_python_for_ray(ray["RAY_TMPDIR"])), "-m", "ray.scripts.scripts"),
            *("start", "--head", "--block"),
            *(f"--node-ip-address={HOST}", f"--port={ports.ray}"),
            *(f"--dashboard-host={HOST}", f"--dashboard-port={ports.dashboard}"),
            *("--include-dashboard=true", "--dashboard-agent-listen-port=0"),
            *(f"--ray-client-server-port={ports.client}", "--disable-usage-stats"),
        ),
        environment=ray,
        ports={"ray": ports.ray, "dashboard": ports.dashboard, "client": ports.client},
        url=dashboard,
        probe=f"{dashboard}/api/v0/nodes?limit=1",
        ready=b'"ALIVE"',
    )
    # Paths relative to the directory it runs in, so that no character of `root` can break a URI.
    mlflow_server = Service(
        name="mlflow",
        argv=(
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--workers", "1"),
            *("--port", str(ports.mlflow), "--backend-store-uri", "sqlite:///var/mlflow.db"),
            *("--artifacts-destination", "var/mlartifacts"),
        ),
        environment={
            **_base_environment(environment, Path(sys.executable)),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        ports={"mlflow": ports.mlflow},
        url=mlflow,
        probe=f"{mlflow}/health",
        ready=b"OK",
    )
    return ray_head, mlflow_server


def exports(ports: Ports) -> dict[str, str]:
    """The variables with which another process of this machine finds the cluster."""
    return {
        "RAY_API_SERVER_ADDRESS": f"http://{HOST}:{ports.dashboard}",
        "RAY_ADDRESS": f"{HOST}:{ports.ray}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports.mlflow}",
    }


def up(root: Path, asked: Mapping[str, int]) -> None:
    """Starts what is not up and waits until all answers. `asked` holds ports other than defaults.

    Raises LocalClusterError on a busy port, on other ports than those of a running cluster, and
    on a service that ends or stays silent; what this call started is taken down again.
    """
    record = Record.load(root)
    alive = {name for name, started in record.services.items() if started.is_alive()}
    ports = replace(record.ports if alive else Ports(), **asked)
    if alive and ports != record.ports:
        raise LocalClusterError(
            f"the cluster is up on other ports, {asdict(record.ports)}; "
            "take it down first: python -m cluster.local down"
        )
    services = plan(root, ports, os.environ)
    missing = [service for service in services if service.name not in alive]
    end([started for name, started in record.services.items() if name not in alive])
    _require_free_ports(missing)
    if "ray" not in alive:
        _renew_ray_folder(services[0])
    try:
        for service in missing:
            print(f"starting {service.name}", flush=True)
            started = service.start(root, _log(root, service.name))
            record = Record(ports=ports, services={**record.services, service.name: started})
            record.save(root)
        _wait(root, services, record)
    except BaseException:
        _take_down(root, record, [service.name for service in missing])
        raise
    lines = [f"export {name}={value}" for name, value in exports(ports).items()]
    (_folder(root) / "local.env").write_text("\n".join(lines) + "\n")
    print("up" if missing else "already up")
    print(f"  Ray dashboard  {services[0].url}\n  MLflow         {services[1].url}")
    print("To use it from a shell (`ray job submit`, `ray.init()`, MLflow):")
    print("  . var/cluster/local.env\nwhich does")
    print("\n".join(f"  {line}" for line in lines))
    print("Down again: python -m cluster.local down")


def status(root: Path) -> bool:
    """Prints each service's state; whether all of them answer."""
    record = Record.load(root)
    answering = []
    for service in plan(root, record.ports, os.environ):
        started = record.services.get(service.name)
        is_alive = started is not None and started.is_alive()
        answering.append(is_alive and service.answers())
        state = "up" if answering[-1] else "started, does not answer" if is_alive else "down"
        print(f"{service.name:7} {state}" + (f"  {service.url}" if answering[-1] else ""))
    return all(answering)


def down(root: Path) -> None:
    """Takes down what `up` started, with every process that came of it."""
    record = Record.load(root)
    if not record.services:
        print(f"nothing to take down: {_folder(root) / 'local.json'} records no service")
    for name in _take_down(root, record, list(record.services)):
        print(f"{name} is down")


def _take_down(root: Path, record: Record, names: Iterable[str]) -> list[str]:
    ended = [name for name in names if name in record.services]
    end([record.services[name] for name in ended])
    kept = {name: each for name, each in record.services.items() if name not in ended}
    replace(record, services=kept).save(root)
    if not kept:
        (_folder(root) / "local.env").unlink(missing_ok=True)
    return ended


def _wait(root: Path, services: Iterable[Service], record: Record) -> None:
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    waiting = list(services)
    while waiting := [service for service in waiting if not service.answers()]:
        for service in waiting:
            silent = time.monotonic() > deadline
            if silent or not record.services[service.name].is_alive():
                fault = f"does not answer after {ANSWER_TIMEOUT_S:.0f} s" if silent else "ended"
                path = _log(root, service.name)
                tail = "\n".join(path.read_text(errors="replace").splitlines()[-15:])
                raise LocalClusterError(f"{service.name} {fault}; the end of {path}:\n{tail}")
        time.sleep(0.1)


def _require_free_ports(services: Iterable[Service]) -> None:
    for service in services:
        for option, port in service.ports.items():
            if not is_free(port):
                raise LocalClusterError(
                    f"port {port}, which {service.name} needs, is taken by {owner(port)}: stop "
                    f"that, or choose another: python -m cluster.local up --{option}-port "
                    f"{free_port()}"
                )


def _renew_ray_folder(service: Service) -> None:
    folder = Path(service.environment["RAY_TMPDIR"])
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier cluster on this port
    folder.mkdir(mode=0o700, parents=True)
    (folder / "env").symlink_to(Path(sys.executable).parent.parent)


def _python_for_ray(folder: str) -> Path:
    """This interpreter, by a path without a space: Ray hands it to a shell and does not quote it.

    folder: the head's, in which `env` is a link to this environment.
    """
    python = Path(sys.executable)
    if shlex.quote(str(python)) == str(python):
        return python
    return Path(folder, "env", python.parent.name, python.name)


def _folder(root: Path) -> Path:
    return root / "var" / "cluster"


def _log(root: Path, name: str) -> Path:
    return _folder(root) / f"{name}.log"


def _base_environment(environment: Mapping[str, str], python: Path) -> dict[str, str]:
    """The caller's environment, without addresses of other clusters; `python` is found first."""
    kept = {k: v for k, v in environment.items() if k not in exports(Ports())}
    path = os.pathsep.join([str(python.parent), environment.get("PATH", os.defpath)])
    return {"MLFLOW_DISABLE_TELEMETRY": "true", **kept, "PATH": path}


def _ray_environment(root: Path, ports: Ports, environment: Mapping[str, str]) -> dict[str, str]:
    def location(name: str, default: str) -> str:
        value = environment.get(name) or default
        return value if "://" in value else str(root / Path(value).expanduser())

    # Below /tmp, because a socket's path has at most 107 bytes.
    folder = f"{environment.get('RAY_TMPDIR', '/tmp')}/ray-{os.getuid()}-{ports.ray}"
    return {
        **_base_environment(environment, _python_for_ray(folder)),
        "SHARDS_ROOT": location("SHARDS_ROOT", "var/shards"),
        "SHARDS_CACHE": location("SHARDS_CACHE", "var/cache"),
        "RUNS_ROOT": location("RUNS_ROOT", "var/runs"),
        "MLFLOW_TRACKING_URI": exports(ports)["MLFLOW_TRACKING_URI"],
        "RAY_AUTH_MODE": "disabled",
        # What macOS has by default: addresses stay loopback, and nothing listens on 0.0.0.0.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_TMPDIR": folder,
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0 done (or all up), 1 failed, 2 called wrongly."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start what is not up, wait until it answers")
    for each in fields(Ports):
        start.add_argument(f"--{each.name}-port", type=int, help=f"default: {each.default}")
    commands.add_parser("status", help="what is up; exit status 1 unless all is")
    commands.add_parser("down", help="take down exactly what was started")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        if options.command == "up":
            chosen = {each.name: getattr(options, f"{each.name}_port") for each in fields(Ports)}
            up(root, {name: port for name, port in chosen.items() if port is not None})
        elif options.command == "down":
            down(root)
        else:
            return 0 if status(root) else 1
    except ValueError as error:
        parser.error(str(error))
    except LocalClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
