"""Runs a run again from its record in MLflow, and says whether it came out the same:
`python -m orchestrator.reproduce RUN`.

    python -m orchestrator.reproduce RUN --plan       what differs here, and what that may change
    python -m orchestrator.reproduce RUN              runs it again, and compares the curves
    python -m orchestrator.reproduce RUN resources.use_gpu=false

RUN is a run's name, an MLflow run id, or a path; all that is known of it comes from MLflow. Fields
that cannot change the result may be set, to fit the run to this cluster. The reproduction is a run
of its own, `RUN-again`: the same command resumes it, and compares again once it is finished;
--fresh makes another. Its curves `train/*` are compared at every step that the first run told.

Exit status: 0 the same, bit for bit or within the tolerance; 1 not the same, or it failed; 2 the
call was wrong, or here is something without which it would be another run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from orchestrator import command, postscript
from orchestrator.archive import generation
from orchestrator.config import Experiment, flat, identity, require
from orchestrator.differences import Difference, differences, version_here
from orchestrator.experiments import assignments, find
from orchestrator.launch import launch
from orchestrator.mlflow_runs import REPRODUCES_TAG
from orchestrator.overrides import override
from orchestrator.record import Record, read_curves, read_record
from orchestrator.run import make_plan
from orchestrator.sameness import TOLERANCE, Sameness, same
from orchestrator.site import Site

VERDICT_TAG = "orchestrator.reproduction"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m orchestrator.reproduce", description=__doc__)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("run", metavar="RUN", help="a run's name, an MLflow run id, or a path")
    out.add_argument("overrides", nargs="*", metavar="path=value")
    out.add_argument("--plan", action="store_true", help="say what differs, run nothing")
    out.add_argument("--fresh", action="store_true", help="make another reproduction")
    out.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="what curves may differ by, as a share of their median size; default: %(default)s",
    )
    out.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = parser().parse_intermixed_args(argv)
    site = Site.from_environment()
    try:
        require(given.tolerance >= 0, "--tolerance", given.tolerance, "0 or more")
        record = read_record(site.mlflow_uri, given.run)
        experiment = as_it_was(record, given.overrides)
        version, missing = version_here(experiment, site)
        found = differences(record, experiment, version, missing)
        name = generation(site, f"{record.name}-again", fresh=given.fresh)
        _show(record, name, found)
        if given.plan and given.json:
            differing = [asdict(each) for each in found]
            print(json.dumps({"run": record.name, "again": name, "differences": differing}))
        refused = [each.what for each in found if each.importance == "refuses"]
        if refused:
            raise ValueError(f"{record.name} cannot be reproduced here: see {', '.join(refused)}")
        make_plan(experiment, site, fresh=False)  # what else a run needs is here as well
        if given.plan:
            return 0
    except (ValueError, OSError) as error:
        return command.wrong_call(error)
    tags = {REPRODUCES_TAG: record.name}
    code = launch(experiment, site, name, version, as_json=False, tags=tags, registers=False)
    if code:
        return code
    try:
        return _compare(record, name, site, found, given)
    except (ValueError, OSError) as error:
        print(f"error: {name} is finished, but was not compared: {error}", file=sys.stderr)
        return 1


def as_it_was(record: Record, overrides: Sequence[str]) -> Experiment:
    """The recorded experiment, on as many workers as it had, with the user's overrides on top.

    Raises ValueError for a field that this version does not know, and for an override that would
    make it another experiment.
    """
    workers = [] if record.workers is None else [f"resources.num_workers={record.workers}"]
    was = override(find(record.experiment["name"]), assignments(record.experiment))
    experiment = override(was, [*workers, *overrides])
    before, after = flat(identity(was)), flat(identity(experiment))
    for path in (path for path in before if before[path] != after[path]):
        raise ValueError(
            f"{path}={after[path]}: it decides the result, so this would reproduce nothing; "
            "orchestrator.run trains another experiment"
        )
    return experiment


def _show(record: Record, name: str, found: Sequence[Difference]) -> None:
    print(f"{record.name} ({record.status}), made by: {record.command}")
    if record.reproduces is not None:
        print(f"it is itself a reproduction, of {record.reproduces}")
    print(f"again as {name}")
    if not found:
        print("nothing differs here: dataset, code, packages, device and workers are as they were")
        return
    rows = [("what", "then", "now", "")]
    rows += [(each.what, each.then[:46], each.now[:46], each.importance) for each in found]
    width = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row, each in zip(rows, [None, *found], strict=True):
        print("  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip())
        if each is not None:
            print(f"    {each.effect}")


def _compare(
    record: Record,
    name: str,
    site: Site,
    found: Sequence[Difference],
    given: argparse.Namespace,
) -> int:
    again = read_record(site.mlflow_uri, name)
    uri = site.mlflow_uri
    one, other = read_curves(uri, record.run_id), read_curves(uri, again.run_id)
    result = same(one, other, tolerance=given.tolerance)
    told = {
        "run": record.name,
        "again": name,
        **result.plain(),
        "differences": [asdict(each) for each in found],
    }
    files = {"reproduction.json": json.dumps(told, indent=1).encode()}
    tags = {VERDICT_TAG: result.verdict}
    postscript.add(site, name, step=0, files=files, tags=tags)
    print(verdict(record.name, name, result))
    if given.json:
        print(json.dumps(told))
    return 0 if result.verdict != "different" else 1


def verdict(one: str, other: str, result: Sameness) -> str:
    """The result for a person."""
    lines = [f"{result.verdict}: {other} and {one}, up to step {result.last_step}"]
    if result.verdict != "bit-identical" and result.differs is not None:
        lines.append(f"  equal bit for bit before step {result.differs}")
    if result.leaves is not None:
        share, step = f"{result.tolerance:g}", result.leaves
        lines.append(f"  outside of the tolerance ({share} of a curve's size) from step {step}")
    for metric in result.metrics:
        gap = f", {metric.missing} steps missing" if metric.missing else ""
        far = f"largest difference {metric.largest:.3g} of its size"
        lines.append(f"  {metric.name:<24} {metric.points} points{gap}, {far}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
