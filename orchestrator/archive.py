"""The runs at RUNS_ROOT: which one a user means, how far it is, and where the next one goes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checkpoint import Checkpoints
from orchestrator.mlflow_runs import RUN_TAG, names_by_id, tags_of
from orchestrator.site import Site
from shards.storage import Store, is_remote, open_store

_PARTS = ("attempts", "checkpoints")  # a folder with one of them is a run's


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that was started. location: its folder or `s3://` URL."""

    name: str
    location: str


def locate(text: str, site: Site) -> Run:
    """The run that a user means by `text`: a run's name, an MLflow run id, or a path.

    A path may lie outside RUNS_ROOT. MLflow is asked only about what looks like an id.
    Raises ValueError naming the nearest match, OSError when a store or MLflow does not answer.
    """
    if "/" in text or text.startswith((".", "~")):
        return _at(text)
    if text and _is_run(site.run(text)):
        return Run(name=text, location=site.run(text))
    if re.fullmatch("[0-9a-f]{12,}", text):  # no run's name: those have a hyphen
        return _of_id(text, site)
    names = _names(site)
    none = "" if names else "; no run has been started there"
    raise ValueError(
        f"no run {text!r} at {site.runs_root} (RUNS_ROOT){none}"
        f"{_suggest(text, {name: repr(name) for name in names})}. "
        "RUN is a run's name, an MLflow run id, or a path"
    )


def generation(site: Site, base: str, *, fresh: bool) -> str:
    """The newest run of the name `base`: itself, or `-r2`, `-r3` ... that `--fresh` made.

    With `fresh`, the next one that has not started yet.
    """
    number, name = 1, base
    while True:
        following = f"{base}-r{number + 1}"
        start_next = fresh and _started(open_store(site.run(name)))
        if not start_next and not _started(open_store(site.run(following))):
            return name
        number, name = number + 1, following


def progress(store: Store) -> tuple[str, int]:
    """(`new`, `unfinished` or `finished`; the step of the newest checkpoint, 0 without one)."""
    steps = Checkpoints(store, keep=2).steps()
    step = steps[-1] if steps else 0
    if any(name == "result.json" for name, _ in store.list("result.json")):
        return "finished", step
    return ("unfinished" if _started(store) else "new"), step


def _started(store: Store) -> bool:
    return any(True for _ in store.list("attempts/"))


def _is_run(location: str) -> bool:
    store = open_store(location)
    return any(True for part in _PARTS for _ in store.list(f"{part}/"))


def _at(path: str) -> Run:
    location = path.rstrip("/") if is_remote(path) else str(Path(path).expanduser().resolve())
    parent, _, name = location.rpartition("/")
    if _is_run(location):
        return Run(name=name, location=location)
    names = [] if is_remote(location) else _folders(Path(parent))
    near = _suggest(name, {each: f"{parent}/{each}" for each in names})
    raise ValueError(f"{path}: no run, it has no {' and no '.join(_PARTS)} folder{near}")


def _of_id(run_id: str, site: Site) -> Run:
    tags = tags_of(site.mlflow_uri, run_id)
    if tags is None:
        labels = {k: f"{k} ({name})" for k, name in names_by_id(site.mlflow_uri).items()}
        near = _suggest(run_id, labels)
        raise ValueError(f"MLflow at {site.mlflow_uri} has no run with the id {run_id}{near}")
    name = tags[RUN_TAG]
    location = site.run(name)
    if not _is_run(location):
        wrote = tags.get("orchestrator.checkpoints", "a place that MLflow was not told")
        raise ValueError(
            f"MLflow's run {run_id} is {name}, and there is no run at {location}; its checkpoints "
            f"went to {wrote}: set RUNS_ROOT, or give the run's path"
        )
    return Run(name=name, location=location)


def _names(site: Site) -> list[str]:
    """The runs to suggest: a folder's own; of an object store, which is slow to list, MLflow's."""
    if not is_remote(site.runs_root):
        return _folders(Path(site.runs_root))
    try:
        return sorted(names_by_id(site.mlflow_uri).values())
    except OSError:
        return []


def _folders(root: Path) -> list[str]:
    found = {path.parent.name for part in _PARTS for path in root.glob(f"*/{part}")}
    return sorted(found)


def _suggest(text: str, labels: Mapping[str, str]) -> str:
    """`; did you mean ...?` with at most three labels, of names that begin so or are alike."""
    begin = [name for name in sorted(labels) if text and name.startswith(text)]
    near = begin or difflib.get_close_matches(text, labels, n=3)
    return f"; did you mean {' or '.join(labels[name] for name in near[:3])}?" if near else ""
