"""The Markdown that MLflow shows with experiments and runs: what it is, and what to do with it."""

from __future__ import annotations

import importlib
import json
import shlex
import time

from orchestrator.config import Experiment, flat, identity, plain
from orchestrator.experiments import EXPERIMENTS, assignments
from orchestrator.mlflow_runs import NOTE_TAG
from orchestrator.worker import Job

_VIEW = "mlflow.sharedViewState."
_METRICS = (
    *("train/loss", "train/objective", "train/d_loss", "train/g_loss"),
    *("train/reconstruction", "train/kl", "train/accuracy"),
    *("val/accuracy", "val/elbo", "sys/clips_per_s", "goodput/fraction"),
)  # those that a model does not have make no column
_PARAMS = ("data.name", "budget.steps", "optim.lr", "seed")
_OPEN = ("train", "val", "Model metrics")


def of_run(job: Job) -> str:
    """Of one run: what it trains on what, where to look, and the commands that go on from it."""
    experiment, name = job.experiment, job.name
    changed = assignments(plain(experiment))
    data = experiment.data
    deciding = flat(identity(experiment))
    shown = [f"`{each}`" for each in changed if each.partition("=")[0] in deciding]
    again = shlex.join(["python", "-m", "orchestrator.run", experiment.name, *changed])
    return f"""\
**{experiment.paper or experiment.name}**

- Experiment `{experiment.name}`, changed: {" ".join(shown) or "nothing"}
- Data `{data.name}`, version `{job.dataset_version[:12]}`, {data.global_batch} clips a step, \
{experiment.budget.steps} steps
- Look: Artifacts, `samples/` (the same noise all through the run), `streams/`, `real/` (clips of \
the dataset); `train/*` are the losses, `goodput/fraction` the share of the time that counted
- Checkpoints: `{job.site.run(name)}/checkpoints`

Resume, or start where it is not yet:

    {again}

Then:

    python -m orchestrator.generate {name}
    python -m orchestrator.evaluate {name}
    python -m orchestrator.reproduce {name}
"""


def of_experiment(experiment: Experiment) -> dict[str, str]:
    """The tags of the MLflow experiment with all runs of a model: its note, and a view of them."""
    view = json.dumps(
        {"name": "Training", "createdAt": int(time.time() * 1000), "state": _view(experiment)}
    )
    return {NOTE_TAG: _about(experiment), f"{_VIEW}training": view}


def _view(experiment: Experiment) -> str:
    """MLflow's run table with the columns that tell runs of this model apart, losses first in the
    charts: what its menu "Views" keeps, as its page writes it."""
    params = [path for path in flat(identity(experiment)) if path.startswith("model.")]
    columns = [f"metrics.`{name}`" for name in _METRICS]
    columns += [f"params.`{path}`" for path in (*_PARAMS, *params)]
    sections = [
        {
            "uuid": name,
            "name": name,
            "display": name in _OPEN,
            "isReordered": True,
            "deleted": False,
            "isGenerated": True,
        }
        for name in (*_OPEN, "sys", "goodput", "data", "System metrics")
    ]
    state = {
        "selectedColumns": columns,
        "compareRunCharts": [],
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }
    return json.dumps(state)


def _about(experiment: Experiment) -> str:
    module = importlib.import_module(type(experiment.model).__module__)
    about = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    kind = type(experiment.model)
    rows = [each for each in EXPERIMENTS.values() if type(each.model) is kind]
    table = "\n".join(f"| `{each.name}` | {each.paper} | `{each.data.name}` |" for each in rows)
    return f"""\
{about}

| experiment | reproduces | data |
| --- | --- | --- |
{table}

The menu "Views" has "Training": the losses, and the fields that tell runs of this model apart. \
One run here is one run name, `<experiment>-<hash>`: the same command resumes it. Params are the \
fields that decide its result, `config.*` tags the others. A run's own note has its commands.

    python -m orchestrator.run EXPERIMENT [path=value ...]
    python -m orchestrator.compare RUN RUN ...
"""
