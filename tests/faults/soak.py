"""Every failure test at many moments, one at a time, with a record: `make soak SEEDS=20`.

    python -m tests.faults.soak --seeds 20 [--only worker_killed] [--table]

Each (test, seed) is a pytest process of its own, nightly tests included. Its outcome becomes one
line of `var/soak/outcomes.jsonl`: test, seed, code, commit, outcome, seconds, and what the test
noted (the moment, the steps lost). It may be interrupted at any time; the next call goes on and
passes over what passed with the same *code*: the sha256 of every file, as it lies here, that a run
or a failure test is made of (see CODE). Should one of them change meanwhile, it stops.

Outputs of what failed are in `var/soak/failed/`. Exit status: 0 all passed, 1 some did not, 2 the
call was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "var" / "soak"
CODE = ("orchestrator", "models", "shards", "tests/faults", "tests/conftest.py", "constraints.txt")
LIMIT_S = 1500.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test at one seed. outcome: passed, failed or skipped. noted: what the test wrote down."""

    test: str
    seed: int
    code: str
    commit: str
    outcome: str
    seconds: float
    at: str
    noted: dict[str, str] = field(default_factory=dict)


def code() -> str:
    """What the runs and the tests are made of, as 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in CODE:
        path = ROOT / name
        for each in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if each == Path(__file__).resolve():
                continue
            digest.update(f"{each.relative_to(ROOT)}\0".encode() + each.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """The commit, with `+dirty` where files differ from it."""
    told = [
        subprocess.run(["git", *call], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        for call in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "-uno"))
    ]
    return told[0] + ("+dirty" if told[1] else "")


def collect(seeds: int, only: str) -> list[tuple[str, int]]:
    """(test, seed) of every failure test, all tests of one seed before the next seed."""
    command = [sys.executable, "-m", "pytest", "tests/faults", "--collect-only", "-q"]
    told = subprocess.run(
        [*command, *(["-k", only] if only else [])],
        cwd=ROOT,
        env=os.environ | {"FAULT_SEEDS": str(seeds)},
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^(tests/faults/\S+)\[(\d+)\]$", told.stdout, re.MULTILINE)
    if not found:
        raise ValueError(f"no failure tests to run\n{told.stdout[-2000:]}{told.stderr[-2000:]}")
    return sorted(((test, int(seed)) for test, seed in found), key=lambda each: each[1])


def read() -> list[Outcome]:
    """All outcomes so far."""
    path = FOLDER / "outcomes.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def run(test: str, seed: int, *, seeds: int, version: str) -> Outcome:
    """Runs one test at one seed. Passes an interruption on to it and waits for its end."""
    report = FOLDER / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"{test}[{seed}]", "-q", f"--junitxml={report}"]
    started, at = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%S")
    site = FOLDER / f"site-{version}"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"FAULT_SEEDS": str(seeds), "FAULT_SITE": str(site)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=LIMIT_S)
    except BaseException:
        process.send_signal(signal.SIGINT)  # its fixtures end what it started
        process.wait(60)
        raise
    outcome, noted = _told(report) if process.returncode in (0, 1) else ("failed", {})
    if process.returncode and outcome == "passed":
        outcome = "failed"  # processes were left running
    if outcome == "failed":
        _keep(f"{test.rpartition(':')[2]}-{seed}-{at}.txt", text)
    return Outcome(
        test=test,
        seed=seed,
        code=version,
        commit=commit(),
        outcome=outcome,
        seconds=round(time.monotonic() - started, 1),
        at=at,
        noted=noted,
    )


def _told(report: Path) -> tuple[str, dict[str, str]]:
    (case,) = ET.parse(report).getroot().iter("testcase")
    noted = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
    kinds = {child.tag for child in case}
    failed = bool(kinds & {"failure", "error"})
    return "failed" if failed else "skipped" if "skipped" in kinds else "passed", noted


def _keep(name: str, text: str) -> None:
    (FOLDER / "failed").mkdir(exist_ok=True)
    (FOLDER / "failed" / name).write_text(text)


def table(outcomes: list[Outcome], version: str) -> str:
    """A line for each failure: what the newest outcome of each seed was with this code."""
    newest = {(each.test, each.seed): each for each in outcomes if each.code == version}
    rows = defaultdict(list)
    for (test, _), each in sorted(newest.items()):
        rows[test.rpartition(":")[2].removeprefix("test_")].append(each)
    width = max(map(len, rows), default=0)
    lines = [f"{'code ' + version:{width}}  passed  failed  skipped  median s"]
    for name, found in rows.items():
        counts = [sum(each.outcome == kind for each in found) for kind in _KINDS]
        median = statistics.median(each.seconds for each in found)
        lines.append("{:{}}  {:6}  {:6}  {:7}  {:8.1f}".format(name, width, *counts, median))
    return "\n".join(lines)


_KINDS = ("passed", "failed", "skipped")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=5, help="of every test, from 0 (%(default)s)")
    parser.add_argument("--only", default="", help="as pytest's -k")
    parser.add_argument("--table", action="store_true", help="print what is known, run nothing")
    given = parser.parse_args(argv)
    version = code()
    try:
        if given.seeds < 1:
            raise ValueError(f"--seeds {given.seeds}: must be at least 1")
        todo = [] if given.table else collect(given.seeds, given.only)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    for site in FOLDER.glob("site-*"):
        if site.name != f"site-{version}":
            shutil.rmtree(site)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    passed = {(o.test, o.seed) for o in read() if o.code == version and o.outcome == "passed"}
    status = 0
    try:
        for number, (test, seed) in enumerate(todo, 1):
            if (test, seed) in passed:
                continue
            outcome = run(test, seed, seeds=given.seeds, version=version)
            if code() != version:
                print("the code has changed meanwhile: start again", file=sys.stderr)
                return 1
            with (FOLDER / "outcomes.jsonl").open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            noted = ", ".join(f"{name} {value}" for name, value in outcome.noted.items())
            told = (
                f"{outcome.outcome:7} {outcome.seconds:6.1f} s  {test.rpartition(':')[2]}[{seed}]"
            )
            print(f"{number}/{len(todo)}  {told}  {noted}", flush=True)
            status |= outcome.outcome == "failed"
    except KeyboardInterrupt:
        print("interrupted; the same call goes on", file=sys.stderr)
        status = 130
    print(table(read(), version))
    return status


if __name__ == "__main__":
    sys.exit(main())
