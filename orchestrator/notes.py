"""The Markdown that MLflow shows with experiments and runs: what it is, and what to do with it."""

from __future__ import annotations

import importlib
import shlex

from orchestrator.config import Experiment, plain
from orchestrator.experiments import EXPERIMENTS, assignments
from orchestrator.worker import Job


def of_run(job: Job) -> str:
    """Of one run: what it trains on what, where to look, and the commands that go on from it."""
    experiment, name = job.experiment, job.name
    changed = assignments(plain(experiment))
    data = experiment.data
    say = f"`{'` `'.join(changed)}`" if changed else "nothing"
    again = shlex.join(["python", "-m", "orchestrator.run", experiment.name, *changed])
    return f"""\
**{experiment.paper or experiment.name}**

- Experiment `{experiment.name}`, changed: {say}
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


def of_experiment(experiment: Experiment) -> str:
    """Of the MLflow experiment with all runs of a model: the paper, and what there is to run."""
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

One run here is one run name, `<experiment>-<hash>`: the same command resumes it. Params are the \
fields that decide its result, `config.*` tags the others. A run's own note has its commands.

    python -m orchestrator.run EXPERIMENT [path=value ...]
    python -m orchestrator.compare RUN RUN ...
"""
