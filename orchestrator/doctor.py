"""What is wrong with this site or cluster, and what to do: `python -m orchestrator.doctor`.

    python -m orchestrator.doctor                 the site, and the cluster of RAY_ADDRESS
    python -m orchestrator.doctor vgan_golf       and what that run needs
    python -m orchestrator.doctor --bandwidth     and the time of an all-reduce over the nodes

Exit status: 0 nothing is wrong, 1 something is, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import sys
from typing import Any

from orchestrator import command
from orchestrator.config import Experiment
from orchestrator.preflight import Check, Finding, run_checks, site_checks
from orchestrator.site import Site


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = command.parser(
        "doctor", __doc__, name_help="an experiment, to check what it needs as well"
    )
    out.add_argument("--bandwidth", action="store_true", help="time an all-reduce over the nodes")
    out.add_argument("--reap", action="store_true", help="set zombie runs in MLflow to KILLED")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = parser().parse_intermixed_args(argv)
    try:
        experiment = command.experiment_of(given)
        if given.bandwidth and "RAY_ADDRESS" not in os.environ:
            raise ValueError("--bandwidth: set RAY_ADDRESS to the cluster whose network to time")
    except ValueError as error:
        return command.wrong_call(error)
    site = Site.from_environment()
    found = run_checks(site_checks(site, experiment))
    facts: dict[str, Any] = {}
    if found["mlflow"] is None:
        found |= run_checks({"zombies": lambda: zombies(site.mlflow_uri, reap=given.reap)})
    if "RAY_ADDRESS" in os.environ:
        found |= _cluster(experiment, facts, bandwidth=given.bandwidth)
    _show(found, facts, as_json=given.json)
    return 1 if any(found.values()) else 0


def _cluster(
    experiment: Experiment | None, facts: dict[str, Any], *, bandwidth: bool
) -> dict[str, Finding | None]:
    address = os.environ["RAY_ADDRESS"]
    unreachable = ray_reachable(address)
    if unreachable is not None:
        return {"cluster": unreachable}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    from orchestrator.probe import all_reduce_gbit_s, cluster_checks

    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError) as error:
        return {"cluster": _unreachable(address, f"{type(error).__name__}: {error}")}
    checks: dict[str, Check] = {"cluster": lambda: None}
    checks |= cluster_checks(experiment)
    try:
        found = run_checks(checks)
        if bandwidth:
            facts["all_reduce_gbit_s"] = all_reduce_gbit_s()
    finally:
        ray.shutdown()
    return found


def ray_reachable(address: str, *, timeout_s: float = 3.0) -> Finding | None:
    """Whether something listens at `HOST:PORT`; other forms of address are left to Ray."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return None
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s):
            return None
    except OSError as error:
        return _unreachable(address, error.strerror or str(error))


def _unreachable(address: str, evidence: str) -> Finding:
    return Finding(
        problem=f"the Ray cluster at {address} cannot be reached",
        evidence=evidence,
        remedy="Start it (python -m cluster.local up), correct RAY_ADDRESS, or unset it to have "
        "each run start its own",
    )


def zombies(uri: str, *, reap: bool) -> Finding | None:
    """Whether MLflow calls runs RUNNING that nobody drives. reap: makes them KILLED instead."""
    from orchestrator import mlflow_runs

    mlflow = mlflow_runs.client_of_existing(uri)
    if mlflow is None:
        return None
    if reap:
        mlflow_runs.reap(mlflow)
    found = mlflow_runs.silent_runs(mlflow)
    if not found:
        return None
    return Finding(
        problem=f"MLflow calls {len(found)} run(s) running that nobody drives",
        evidence="; ".join(
            f"{run.data.tags[mlflow_runs.RUN_TAG]}, silent for {silent_s / 60:.0f} min"
            for run, silent_s in found[:5]
        ),
        remedy="Start them again to go on; --reap sets them to KILLED, as the next start does",
        fatal=False,
    )


def _show(found: dict[str, Finding | None], facts: dict[str, Any], *, as_json: bool) -> None:
    wrong = {name: finding for name, finding in found.items() if finding is not None}
    if as_json:
        checks = {
            name: None if finding is None else dataclasses.asdict(finding)
            for name, finding in found.items()
        }
        print(json.dumps({"wrong": len(wrong), "checks": checks, "facts": facts}))
        return
    for name, finding in found.items():
        if finding is None:
            print(f"ok     {name}")
            continue
        print(f"WRONG  {name}: {finding.problem}")
        print(f"         evidence  {finding.evidence}")
        print(f"         remedy    {finding.remedy}")
    for name, value in facts.items():
        print(f"       {name} {'n/a: one node' if value is None else f'{value:.2f}'}")
    print(
        f"{len(wrong)} of {len(found)} checks found something wrong" if wrong else "nothing wrong"
    )


if __name__ == "__main__":
    sys.exit(main())
