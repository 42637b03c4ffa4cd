"""The site of the runs, the outcome that every broken run must have, and how runs are made.

A run costs about 20 s on two cores, most of it Ray's start; the uninterrupted one is made once, and
with FAULT_SITE naming a folder that is kept, once for all sessions (see soak.py).
"""

import os
from pathlib import Path

import pytest

from tests.faults.command import Run


@pytest.fixture(scope="session")
def site(tmp_path_factory, make_dataset):
    """The dataset `squares`, and room for runs."""
    kept = os.environ.get("FAULT_SITE")
    folder = Path(kept).absolute() if kept else tmp_path_factory.mktemp("site")
    if not (folder / "shards" / "squares").exists():
        make_dataset(folder / "shards" / "squares")
    return folder


@pytest.fixture(scope="session")
def once(site):
    """Makes the outcome of a run that nothing breaks, or finds it: `once("straight")`."""

    def make(name, **options):
        run = Run(site, name, **options)
        if list(run.folder.glob("*/result.json")):
            return run.outcome()
        return run.forget().start().finish()

    return make


@pytest.fixture(scope="session")
def uninterrupted(once):
    """The outcome that every broken run must have."""
    return once("straight")


@pytest.fixture
def run(site, request):
    """Makes a `Run` named after the test, forgetting an earlier one; `name` finds another."""
    own_name = request.node.name.replace("[", "-").replace("]", "")[5:]
    made = []

    def make(name=None, **options):
        note = request.node.user_properties.append
        made.append(Run(site, name or own_name, note=note, **options))
        return made[-1] if name else made[-1].forget()

    yield make
    for each in made:
        each.end()
