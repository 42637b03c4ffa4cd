"""What can be known to be wrong before a GPU is paid for: checks that take seconds, in parallel.

A check returns None, or a `Finding`: the problem, the evidence for it, and the remedy. Fatal ones
would end the run; the others are worth knowing. `demand` is what a run calls; `orchestrator.doctor`
prints the same checks by hand. Those of a cluster's nodes are in `orchestrator.nodes`.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config import Experiment
from orchestrator.site import Site
from shards.catalog import Catalog
from shards.fill import check
from shards.quarantine import BadSampleError
from shards.read import open_dataset
from shards.storage import Store, is_remote, open_store

DEADLINE_S = 20.0
_SAMPLED = 8  # clips whose checksum is compared
_ADAM_BYTES = 12  # of a float32 weight and its two moments


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong. fatal: a run would fail, or train on something else than it says."""

    problem: str
    evidence: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.problem} ({self.evidence}). {self.remedy}"


Check = Callable[[], Finding | None]


class PreflightError(ValueError):
    """The run would fail; the message says why and what to do."""


def demand(checks: Mapping[str, Check], *, deadline_s: float = DEADLINE_S) -> None:
    """Makes the checks; tells what is not fatal on stderr.

    Raises PreflightError with every fatal finding.
    """
    found = [f for f in run_checks(checks, deadline_s=deadline_s).values() if f is not None]
    for finding in found:
        if not finding.fatal:
            print(f"warning: {finding}", file=sys.stderr, flush=True)
    fatal = [str(finding) for finding in found if finding.fatal]
    if fatal:
        raise PreflightError("\n".join(fatal))


def run_checks(
    checks: Mapping[str, Check], *, deadline_s: float = DEADLINE_S
) -> dict[str, Finding | None]:
    """What each check found, run side by side; one that is not done in time is a finding."""
    found: dict[str, Finding | None] = {}

    def run(name: str) -> None:
        try:
            found[name] = checks[name]()
        except Exception as error:  # a check that fails must neither pass nor stop the others
            found[name] = Finding(
                problem=f"the check of {name} could not be made",
                evidence=f"{type(error).__name__}: {error}",
                remedy="Look at the evidence; the run may still work",
                fatal=False,
            )

    # Daemons, not a pool: a check that hangs must not keep the process from ending.
    threads = {
        name: threading.Thread(target=run, args=(name,), name=f"check-{name}", daemon=True)
        for name in checks
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + deadline_s
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    late = {name: _late(name, deadline_s) for name in checks if name not in found}
    return {name: late[name] if name in late else found[name] for name in checks}


def _late(name: str, deadline_s: float) -> Finding:
    return Finding(
        problem=f"the check of {name} is not done",
        evidence=f"no answer in {deadline_s:g} s",
        remedy="Something it asks hangs: look at the network and at what runs there",
        fatal=False,
    )


def site_checks(site: Site, experiment: Experiment | None) -> dict[str, Check]:
    """The checks that need no cluster; without an experiment, those of the site alone."""
    runs = site.runs_root
    checks: dict[str, Check] = {
        "storage": lambda: storage_writable(open_store(runs)),
        "mlflow": lambda: mlflow_answers(site.mlflow_uri),
    }
    if experiment is None:
        return checks | {"disk": lambda: room_for(runs, 1 << 30, "a run")}
    data = site.dataset(experiment.data.name)
    return checks | {
        "disk": lambda: room_for(runs, _checkpoint_bytes(experiment), "the run's checkpoints"),
        "dataset": lambda: dataset_readable(data),
    }


def storage_writable(store: Store) -> Finding | None:
    """Whether a small file can be put there, read back and taken away."""
    name, data = f"probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
    remedy = "Point RUNS_ROOT at a folder or s3:// URL that this user may write to"
    try:
        store.write(name, data)
        same = store.read(name) == data
        store.delete(name)
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(problem=f"cannot write to {store.location}", evidence=reason, remedy=remedy)
    if same:
        return None
    return Finding(
        problem=f"{store.location} does not give back what was written",
        evidence=f"{name} differs right after it was written",
        remedy=remedy,
    )


def room_for(location: str, size: int, what: str) -> Finding | None:
    """Whether a local folder's disk has `size` bytes free; an object store always does."""
    if is_remote(location):
        return None
    folder = Path(location)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free >= size:
        return None
    return Finding(
        problem=f"the disk of {location} is too full for {what}",
        evidence=f"{free / 2**30:.2f} GiB free, {size / 2**30:.2f} GiB needed",
        remedy="Free some, lower budget.keep_checkpoints, or point RUNS_ROOT elsewhere",
    )


def _checkpoint_bytes(experiment: Experiment) -> int:
    """What the kept checkpoints hold, and the one being written."""
    weights = sum(p.numel() for p in experiment.model.build().parameters())
    return (experiment.budget.keep_checkpoints + 1) * _ADAM_BYTES * weights


def dataset_readable(location: str, *, sampled: int = _SAMPLED) -> Finding | None:
    """Whether the manifest and listing agree, and `sampled` random clips have their checksums."""
    remedy = f"See all that is wrong: python -m shards.verify {location}"
    try:
        dataset = open_dataset(location)
    except (OSError, ValueError) as error:
        return Finding(
            problem=f"the dataset at {location} cannot be used", evidence=str(error), remedy=remedy
        )
    catalog, shards = Catalog(dataset), dataset.manifest.shards
    for _ in range(sampled):
        number = random.randrange(len(shards))
        try:
            index = catalog.index(number)
            sample = random.randrange(len(index.keys))
            extent = index.clip(sample)
            data = dataset.store.read_range(shards[number].tar, extent.offset, extent.size)
            check(extent, data)
        except (OSError, BadSampleError) as error:
            return Finding(
                problem=f"a clip of the dataset at {location} is damaged",
                evidence=f"shard {shards[number].name}: {error}",
                remedy=f"{remedy}; --repair SOURCE copies whole files from another copy",
                fatal=False,  # the reader passes over damaged clips, up to its tolerance
            )
    return None


def mlflow_answers(uri: str, *, timeout_s: float = 5.0) -> Finding | None:
    """Whether the tracking store takes requests: a server's API, or SQLite's file.

    Never fatal: metrics wait on disk until MLflow is back.
    """
    if uri.startswith("sqlite:///"):
        return _sqlite_answers(Path(uri.removeprefix("sqlite:///")))
    if not uri.startswith(("http://", "https://")):
        return Finding(
            problem="MLFLOW_TRACKING_URI is of a kind that cannot be checked here",
            evidence=f"it is {uri!r}; MLflow refuses plain folders since 3.7",
            remedy="Use http(s)://HOST:PORT of an MLflow server, or sqlite:///FILE",
            fatal=False,
        )
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=_credentials()), timeout=timeout_s
        ) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        text = error.read(300).decode(errors="replace").strip()
        return _refused(uri, error.code, text)
    except (OSError, ValueError) as error:
        return Finding(
            problem=f"MLflow at {uri} does not answer",
            evidence=str(getattr(error, "reason", error)),
            remedy="Start it (python -m cluster.local up), or set MLFLOW_TRACKING_URI; until then "
            "metrics wait on disk",
            fatal=False,
        )
    return None


def _refused(uri: str, code: int, text: str) -> Finding:
    host = urlsplit(uri).hostname or ""
    remedies = {
        401: "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        403: "This user may not look at it; ask whoever manages MLflow's users"
        if "Host" not in text
        else f"MLflow answers only to hosts it was told of, and {host!r} may be none of them: "
        f"start it with --allowed-hosts '{host},{host}:*,localhost,localhost:*,127.0.0.1:*' (the "
        "option replaces the defaults, and a name does not stand for the name with a port)",
        404: "This is another server than MLflow, or MLflow below another path",
    }
    return Finding(
        problem=f"MLflow at {uri} refuses requests",
        evidence=f"HTTP {code}: {text[:200]}",
        remedy=remedies.get(code, "Look at the server's log"),
        fatal=False,
    )


def _credentials() -> dict[str, str]:
    """MLflow's own variables, as a header."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _sqlite_answers(path: Path) -> Finding | None:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    problem = None
    if not os.access(folder, os.W_OK):
        problem = f"{folder} is not writable"
    elif path.exists():
        try:
            with sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=2) as connection:
                connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            problem = str(error)
    if problem is None:
        return None
    return Finding(
        problem=f"MLflow's database {path} cannot be used",
        evidence=problem,
        remedy="Set MLFLOW_TRACKING_URI to a file that this user may write, or to a server",
        fatal=False,
    )
