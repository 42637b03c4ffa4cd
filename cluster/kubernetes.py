"""The chart on a Kubernetes cluster, and jobs on it, by helm and kubectl.

    python -m cluster.kubernetes install --values site.yaml
    python -m cluster.kubernetes submit vgan_unfiltered --scale cluster data.name=mine
    python -m cluster.kubernetes submit sweep vgan_lambda sweep.trials=20
    python -m cluster.kubernetes submit ingest s3://raw/flickr s3://shards/flickr
    python -m cluster.kubernetes status | logs JOB | down [JOB]

`submit` takes the line of `python -m orchestrator.run`, or of what its first word names (`sweep`,
`ingest`), and its own options anywhere in it. It makes a RayJob of the values of the release (or of
--values), follows its log through broken connections, and ends as the command does. The same line
finds its own job again: a running one is followed, a failed one is submitted again and resumes.
Ctrl-C ends the following, not the job.

The cluster is the current context's of KUBECONFIG. --plan prints what would be sent or called.
Exit status: 0 done, 1 the work failed, 2 the call was wrong or could not be made, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from cluster.programs import ProgramError, output, show
from cluster.rayjobs import RayJob, Work
from cluster.releases import CHART, CLIENT_SIDE, Release

DEFAULT = "training"


def manifests(
    release: Release, work: Work, *, groups: Sequence[str], retries: int | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(the RayJob of `work` as the chart renders it, its disruption budgets).

    Raises ProgramError where the chart refuses the values, or there is no such release to take
    them from.
    """
    values: dict[str, Any] = {}
    if not release.values:
        try:
            values = json.loads(output(release.given())) or {}
        except ProgramError as error:
            if "not found" not in str(error):
                raise
            raise ProgramError(
                f"{error}: no values for {release.name} in namespace {release.namespace}; install "
                "it, or name it with --release and --namespace, or its values with --values"
            ) from None
    values["jobs"] = [work.entry(groups=groups, retries=retries)]
    text = output(release.template("-"), given=json.dumps(values))
    all_of_it = [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    (job,) = [each for each in all_of_it if each["kind"] == "RayJob"]
    budgets = [
        each
        for each in all_of_it
        if each["kind"] == "PodDisruptionBudget"
        and each["spec"]["selector"]["matchLabels"].get("orchestrator/owner") == work.name
    ]
    return job, budgets


def submit(
    release: Release,
    words: Sequence[str],
    *,
    groups: Sequence[str],
    retries: int | None,
    plan: bool,
    waits: bool,
) -> int:
    """The job of a command, submitted unless it is there, and followed; its exit status.

    Raises ValueError and ProgramError with a message for the user.
    """
    manifest, budgets = manifests(release, Work.parse(words), groups=groups, retries=retries)
    if plan:
        print(yaml.safe_dump_all([manifest, *budgets], sort_keys=False), end="")
        return 0
    job = RayJob(manifest["metadata"]["name"], release.namespace)
    state = job.state()
    if state is not None and state.is_over and state.exit_status == 0:
        print(f"{job.name} is done. To run its command again: {_ours('down', release, job)}")
        return 0
    if state is not None and state.is_over:
        print(f"{job.name} failed before ({state}); it is submitted again, and resumes")
        job.clear(state)
        state = None
    made = None if state else _create(job, manifest)
    if made is None:
        print(f"{job.name} is there already")
    else:
        print(f"{job.name} is submitted. To follow it later: {_ours('logs', release, job)}")
        _protect(made, budgets)
    return job.follow() if waits else 0


def _create(job: RayJob, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The RayJob as it was made; None when another call of the same line did so in between."""
    try:
        made: dict[str, Any] = json.loads(_send("create", [manifest], "--output=json"))
    except ProgramError:
        if job.state() is None:
            raise
        return None
    return made


def _protect(made: dict[str, Any], budgets: Sequence[dict[str, Any]]) -> None:
    """Sends a job's disruption budgets, which go with it; without them it runs all the same."""
    owner = {key: made[key] for key in ("apiVersion", "kind")}
    owner |= {key: made["metadata"][key] for key in ("name", "uid")}
    for budget in budgets:
        budget["metadata"]["ownerReferences"] = [owner]
    try:
        # The chart was rendered without the cluster, which may be older than the kind.
        if budgets and "policy/v1" in output(["kubectl", "api-versions"]).split():
            _send("apply", budgets)
    except ProgramError as error:
        print(f"warning: drains of nodes may evict it: {error}", file=sys.stderr)


def install(release: Release) -> int:
    """Installs or upgrades; the exit status."""
    kuberay, rendering, version, installing = release.install()
    if "rayjobs" not in output(kuberay):
        raise ProgramError("the cluster knows no RayJob: install KubeRay, see docs/kubernetes.md")
    output(rendering)
    if not output(version).startswith("v3."):
        installing.append(CLIENT_SIDE)
    try:
        show(installing)
    except ProgramError as error:
        print(f"error: {error}{_way_out(release)}", file=sys.stderr)
        return 1
    return 0


def _way_out(release: Release) -> str:
    """What to do when an operation was cut off, which Helm takes for one that goes on."""
    try:
        told = json.loads(output(release.remove()[0]))
    except ProgramError:
        return ""
    state = told.get("info", {}).get("status", "")
    if not state.startswith("pending-"):
        return ""
    verb = "uninstall" if state == "pending-install" else "rollback"
    way = ["helm", verb, release.name, f"--namespace={release.namespace}"]
    return f". If nobody else is at it: {shlex.join(way)}"


def down(release: Release) -> int:
    """Takes down all jobs and the release; the exit status."""
    there, *ending = release.remove()
    output(there)
    for argv in ending:
        show(argv)
    print(f"Secrets, volumes and the namespace {release.namespace} are left, and the buckets")
    return 0


def logs(job: RayJob) -> int:
    """Follows a job; its exit status."""
    if job.state() is None:
        raise ProgramError(f"no RayJob {job.name} in namespace {job.namespace}; status lists them")
    return job.follow()


def _ours(command: str, release: Release, job: RayJob) -> str:
    where = [] if release.namespace == DEFAULT else ["--namespace", release.namespace]
    return shlex.join(["python", "-m", "cluster.kubernetes", command, *where, job.name])


def _send(verb: str, documents: Sequence[dict[str, Any]], *options: str) -> str:
    text = yaml.safe_dump_all(documents, sort_keys=False)
    return output(["kubectl", verb, "--filename=-", *options], given=text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.kubernetes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, about: str, *, values: bool = False) -> argparse.ArgumentParser:
        out = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        out.add_argument("--release", default=DEFAULT, help="(%(default)s)")
        out.add_argument("--namespace", default=DEFAULT, help="(%(default)s)")
        out.add_argument("--chart", default=str(CHART), help="(%(default)s)")
        if values:
            out.add_argument("--values", action="append", default=[], metavar="FILE")
        out.add_argument("--plan", action="store_true", help="print it, send nothing")
        return out

    command("render", "every manifest of the chart", values=True)
    command("install", "install or upgrade, wait until it is ready", values=True)
    send = command("submit", "a run, sweep or ingest as a RayJob; follow it", values=True)
    send.usage = "%(prog)s [options] [run|sweep] NAME [path=value ...] | ingest SRC DST ..."
    send.add_argument("--groups", help="worker groups of the job, with commas (all)")
    send.add_argument("--retries", type=int, help="times a failed job is submitted again (3)")
    send.add_argument("--no-wait", action="store_true", help="do not follow it")
    command("status", "what is installed and what runs")
    command("logs", "follow a job").add_argument("job")
    command("down", "one job, or all of them and the release").add_argument("job", nargs="?")
    return parser


def _do(given: argparse.Namespace, words: list[str]) -> int:
    release = Release(
        name=given.release,
        namespace=given.namespace,
        chart=given.chart,
        values=tuple(getattr(given, "values", ())),
    )
    if given.command == "submit":
        return submit(
            release,
            words,
            groups=given.groups.split(",") if given.groups else (),
            retries=given.retries,
            plan=given.plan,
            waits=not given.no_wait,
        )
    job = RayJob(given.job, release.namespace) if getattr(given, "job", None) else None
    if given.plan:
        print("\n".join(shlex.join(argv) for argv in _calls(given.command, release, job)))
        return 0
    if given.command == "install":
        return install(release)
    if given.command == "logs":
        assert job is not None
        return logs(job)
    if given.command == "down" and job is None:
        return down(release)
    for argv in _calls(given.command, release, job):
        show(argv)
    return 0


def _calls(command: str, release: Release, job: RayJob | None) -> list[list[str]]:
    if job is not None and command == "down":
        return [job.delete()]
    if job is not None:
        return [job.find(), job.submitters(), [*job.read("pod/NEWEST"), "--follow"]]
    if command == "render":
        return [release.template()]
    return {"install": release.install, "status": release.show, "down": release.remove}[command]()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    given, words = parser.parse_known_args(arguments)
    if words and given.command != "submit":
        parser.error(f"{given.command}: {shlex.join(words)} is none of its arguments")
    try:
        return _do(given, words)
    except (ProgramError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was sent goes on, and the same command finds it", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `| head`; what is not printed yet is not missed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
